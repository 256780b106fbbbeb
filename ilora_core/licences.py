"""The licence chain of an adapter: its generator, what labelled its pictures, and the pictures themselves.

    chain = licence_chain(record)        # a run.json, as plain data
    chain.links                          # part, name, licence text, class
    chain.commercial, chain.terms, chain.flags
    chain.hub_metadata()                 # `license` and, where needed, `license_name` and `license_link`

Weights that were really loaded count before the card that they were loaded through: `--generator sd15` with other weights is
under those weights' licence. A name that `ilora_core.licence_names` does not list is unknown and has to be checked by a person.
This is a reading of recorded names, and no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ilora_core.hub import is_hub_id
from ilora_core.licence_names import CLASSES, Licence, defers, recognise
from ilora_core.registry import Registry, load_registry

__all__ = ["Chain", "Link", "licence_chain", "merge_chains", "registered_weights"]

_YOURS = "yours"
_NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Link:
    """One thing that went into an adapter.

    part      generator, labeler, pairs, pictures, samples, source or data
    text      its licence as recorded
    licences  those of them that are known
    open      what of the text is not: it has to be checked
    """

    part: str
    name: str
    text: str
    licences: tuple[Licence, ...] = ()
    open: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """One of CLASSES: the most binding of its licences."""
        kinds = [licence.kind for licence in self.licences]
        kinds += ["unstated" if text == _YOURS else "unknown" for text in self.open]
        return max(kinds, key=CLASSES.index, default="unknown")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"part": self.part, "name": self.name, "licence": self.text, "class": self.kind}


@dataclass(frozen=True)
class Chain:
    """The links, and what follows from them together."""

    links: tuple[Link, ...]

    @property
    def licences(self) -> tuple[Licence, ...]:
        """Each known licence once, the most binding first."""
        found = dict.fromkeys(licence for link in self.links for licence in link.licences)
        return tuple(sorted(found, key=lambda licence: (-CLASSES.index(licence.kind), licence.name)))

    @property
    def commercial(self) -> str:
        """Commercial use: "no", "unclear" (something is unknown or unstated), "with conditions" or "yes"."""
        kinds = {link.kind for link in self.links}
        if "non-commercial" in kinds:
            return "no"
        if not kinds or kinds & {"unknown", "unstated"}:
            return "unclear"
        return "with conditions" if kinds & {"community", "use-restricted"} else "yes"

    @property
    def terms(self) -> tuple[str, ...]:
        """What has to be passed on with the adapter, licence by licence."""
        return tuple(
            f"{licence.name}: {licence.terms} ({licence.source})" for licence in self.licences if licence.terms
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """What a person should look at before publishing, in plain words."""
        alone = [flag for link in self.links for flag in _flags_of(link)]
        return tuple(dict.fromkeys([*alone, *_flags_together(self)]))

    def hub_metadata(self) -> dict[str, str]:
        """The hub's `license`; "other" with a name where no one identifier says it."""
        binding = [licence for licence in self.licences if licence.kind != "permissive"]
        counted = binding or list(self.licences)
        if self.commercial == "unclear" or any(link.open for link in self.links):
            return {"license": "other", "license_name": "to-be-checked-see-the-card"}
        if len(counted) == 1 and counted[0].hub:
            return {"license": counted[0].hub}
        name = "-and-".join(_slug(licence.name) for licence in counted)
        link = {"license_link": counted[0].source} if len(counted) == 1 else {}
        return {"license": "other", "license_name": name, **link}

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        links = [link.to_json() for link in self.links]
        told = {"commercial": self.commercial, "terms": list(self.terms), "flags": list(self.flags)}
        return {"links": links, **told, "hub": self.hub_metadata()}


def licence_chain(record: Mapping[str, Any], *, registry: Registry | None = None) -> Chain:
    """The chain of what a run.json records. registry: None = this installation's."""
    registry = registry or load_registry()
    generator = _generator(record, registry)
    return Chain((generator, *_labelers(record, registry), *_data(record, generator)))


def merge_chains(chains: Mapping[str, Chain]) -> Chain:
    """One chain of several adapters': each link once."""
    return Chain(tuple(dict.fromkeys(link for chain in chains.values() for link in chain.links)))


def registered_weights(record: Mapping[str, Any], registry: Registry | None = None) -> str | None:
    """The registry's name for the generator's weights that were loaded, or None."""
    registry = registry or load_registry()
    entry = record.get("generator", {})
    given = str(entry.get("settings", {}).get("weights") or "")
    return _known_weights(given or str(entry.get("provenance", {}).get("weights") or entry.get("name", "")), registry)


def _generator(record: Mapping[str, Any], registry: Registry) -> Link:
    entry = record.get("generator", {})
    name, facts = str(entry.get("name", "?")), entry.get("provenance", {})
    card = str(record.get("licences", {}).get(f"generator {name}", ""))
    texts = _texts(card, facts, entry.get("settings", {}).get("weights"), registry)
    if channels := str(facts.get("picture_channels", "")):
        texts += _channels(channels, registry)
    return _link("generator", name, texts)


def _labelers(record: Mapping[str, Any], registry: Registry) -> Iterator[Link]:
    config, labels = record.get("config", {}), record.get("labels", {})
    made = {one.get("labeler"): one for one in labels.get("labelers", [labels])}
    settings = config.get("settings", {}).get("labeler", {})
    names = [name.strip() for name in str(config.get("labeler", "")).split("+") if name.strip()]
    for name in names:
        own = settings if len(names) == 1 else settings.get(re.sub(r"[-.]", "_", name.rpartition("/")[2]), {})
        card = str(record.get("licences", {}).get(f"labeler {name}", ""))
        yield _link("labeler", name, _texts(card, made.get(name, {}).get("facts", {}), own.get("weights"), registry))


def _data(record: Mapping[str, Any], generator: Link) -> Iterator[Link]:
    config, stated = record.get("config", {}), record.get("licences", {})
    if imported := record.get("imported"):
        yield _link("adapter weights", imported["file"], [str(stated.get("adapter weights", _NOT_RECORDED))])
    elif config.get("pairs"):
        yield _link("pairs", "pictures and maps from a folder", [str(stated.get("pairs", _YOURS))])
    elif config.get("pictures"):
        yield _link("pictures", "pictures from a folder", [str(stated.get("pictures", _YOURS))])
    elif config.get("samples"):
        yield replace(generator, part="samples", name=f"drawn by {generator.name}")
    elif source := config.get("source"):
        yield _link("source", source, [str(stated.get(f"source {source}", "")) or _NOT_RECORDED])
    else:
        yield _link("data", "training pictures", [_NOT_RECORDED])


def _texts(card: str, facts: Mapping[str, Any], given: Any, registry: Registry) -> list[str]:
    """Licence texts of loaded weights: their own word, the registry's, the card's."""
    known = _known_weights(str(given or ""), registry)
    own = facts.get("licence") or (registry.weights[known].licence if known else "")
    texts = [str(own)] if own else []
    if given and not own:
        texts.append("not stated by the weights that were given")
    if not card:
        return texts or [_NOT_RECORDED]
    if defers(card):
        return texts or [card]
    # Given weights with a word of their own replace the card's; without one, both may apply.
    return texts if given and own else list(dict.fromkeys([*texts, card]))


def _channels(told: str, registry: Registry) -> list[str]:
    """Licences of the channels that read the picture, of a generator that was widened."""
    if told in ("zeros", "given"):
        return []
    known = _known_weights(told.partition(" (")[0], registry)
    return [registry.weights[known].licence if known else "not stated by the weights of the picture's channels"]


def _known_weights(text: str, registry: Registry) -> str | None:
    """The registry's name of a name or hub id."""
    if text in registry.weights:
        return text
    served = [name for name, entry in registry.weights.items() if is_hub_id(text) and text in entry.sources]
    return served[0] if served else None


def _link(part: str, name: str, texts: list[str]) -> Link:
    licences, unread = [], []
    for text in dict.fromkeys(texts):
        found = recognise(text)
        licences += found
        unread += [] if found else [text]
    return Link(part, name, "; ".join(dict.fromkeys(texts)), tuple(dict.fromkeys(licences)), tuple(unread))


def _slug(name: str) -> str:
    """A name in the characters that the hub takes: a-z, 0-9, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("++", "-plus-plus")).strip("-.")


def _flags_of(link: Link) -> Iterator[str]:
    names = ", ".join(licence.name for licence in link.licences if licence.kind == "non-commercial")
    if names and link.part == "labeler":
        yield (
            f"The labels were made by {link.name}, whose weights are non-commercial ({names}): the adapter was taught by "
            "non-commercial weights, whatever the generator's and the pictures' licences say."
        )
    elif names and link.part == "generator":
        yield f"The generator {link.name} is non-commercial ({names}): the adapter was fitted to it and works only with it."
    elif names:
        yield f"The training data ({link.part}: {link.name}) are non-commercial ({names})."
    for text in link.open:
        yield (
            f"The licence of the {link.part} is yours to state: `ilora push --data-licence NAME`."
            if text == _YOURS
            else f"The licence of {link.part} {link.name} is not known here ({text}): it must be checked."
        )
    for licence in link.licences:
        if licence.kind == "community":
            yield f"{licence.name} ({link.part} {link.name}): {licence.terms}."


def _flags_together(chain: Chain) -> Iterator[str]:
    binding = [licence for licence in chain.licences if licence.kind != "permissive"]
    shared = [licence.name for licence in binding if "same licence" in licence.terms]
    others = [licence.name for licence in binding if licence.name not in shared]
    if len(shared) > 1 or (shared and others):
        yield f"Share-alike beside other terms ({', '.join([*shared, *others])}): whether they go together must be checked."
    elif len(binding) > 1:
        yield f"Several licences bind the adapter at once: {', '.join(licence.name for licence in binding)}."
