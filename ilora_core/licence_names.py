"""The licence names that ilora recognises, each with what it asks and where its text is. An unlisted name is unknown.

`hub` is the identifier for a model card's front matter, from the Hugging Face Hub's list
(https://huggingface.co/docs/hub/repositories-licenses); "" where that list has none.

A name is compared as a whole, without regard to case, spaces and dashes. What plugins say in whole sentences stands in a table
of its own: a rule that guesses from parts of a sentence would take "MIT code; the data are non-commercial" for MIT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CLASSES", "LICENCES", "Licence", "defers", "recognise"]

CLASSES = ("permissive", "share-alike", "use-restricted", "community", "unstated", "unknown", "non-commercial")
"""From the least binding to the most. "unstated": the licence is the user's to state."""

_NOTICE = "keep its notice"
_CREDIT = "name the authors and the licence"
_SHARE = "what derives from it stays under the same licence"
_NC = "no commercial use"
_RAIL = "its use restrictions (Attachment A) and a copy of the licence go with every copy and derivative"
_CC = "https://creativecommons.org/licenses"


@dataclass(frozen=True)
class Licence:
    """name; kind: one of CLASSES; hub: the hub's identifier; terms: what it asks; source: where its text is."""

    name: str
    kind: str
    hub: str
    terms: str
    source: str
    aliases: tuple[str, ...] = ()


def _cc(name: str, kind: str, terms: str) -> Licence:
    _, *parts, version = name.lower().split("-")
    return Licence(name, kind, name.lower(), terms, f"{_CC}/{'-'.join(parts)}/{version}/")


LICENCES = (
    Licence(
        *("Apache-2.0", "permissive", "apache-2.0", _NOTICE, "https://www.apache.org/licenses/LICENSE-2.0"),
        aliases=("Apache License 2.0", "Apache 2"),
    ),
    Licence("MIT", "permissive", "mit", _NOTICE, "https://spdx.org/licenses/MIT.html", ("MIT License",)),
    Licence("BSD-2-Clause", "permissive", "bsd-2-clause", _NOTICE, "https://spdx.org/licenses/BSD-2-Clause.html"),
    Licence("BSD-3-Clause", "permissive", "bsd-3-clause", _NOTICE, "https://spdx.org/licenses/BSD-3-Clause.html"),
    Licence("ISC", "permissive", "isc", _NOTICE, "https://spdx.org/licenses/ISC.html"),
    Licence("Unlicense", "permissive", "unlicense", "", "https://unlicense.org", ("The Unlicense",)),
    Licence(
        *("CC0-1.0", "permissive", "cc0-1.0", "", "https://creativecommons.org/publicdomain/zero/1.0/"),
        aliases=("CC0",),
    ),
    _cc("CC-BY-3.0", "permissive", _CREDIT),
    _cc("CC-BY-4.0", "permissive", _CREDIT),
    _cc("CC-BY-SA-3.0", "share-alike", f"{_CREDIT}; {_SHARE}"),
    _cc("CC-BY-SA-4.0", "share-alike", f"{_CREDIT}; {_SHARE}"),
    _cc("CC-BY-NC-4.0", "non-commercial", f"{_NC}; {_CREDIT}"),
    _cc("CC-BY-NC-SA-3.0", "non-commercial", f"{_NC}; {_CREDIT}; {_SHARE}"),
    _cc("CC-BY-NC-SA-4.0", "non-commercial", f"{_NC}; {_CREDIT}; {_SHARE}"),
    Licence("GPL-3.0", "share-alike", "gpl-3.0", _SHARE, "https://www.gnu.org/licenses/gpl-3.0.html"),
    Licence("AGPL-3.0", "share-alike", "agpl-3.0", _SHARE, "https://www.gnu.org/licenses/agpl-3.0.html"),
    Licence("ODbL-1.0", "share-alike", "odbl", _SHARE, "https://opendatacommons.org/licenses/odbl/1-0/", ("ODbL",)),
    Licence("ODC-By-1.0", "permissive", "odc-by", _CREDIT, "https://opendatacommons.org/licenses/by/1-0/", ("ODC-By",)),
    Licence(
        *("CreativeML-OpenRAIL-M", "use-restricted", "creativeml-openrail-m", _RAIL),
        "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    ),
    Licence(
        *("CreativeML-OpenRAIL++-M", "use-restricted", "openrail++", _RAIL),
        "https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL",
        aliases=("Open Rail++-M License", "openrail++"),
    ),
    Licence(
        *("Stability AI Community License", "community", ""),
        "commercial use has conditions; a copy of the agreement and a notice go with derivatives",
        "https://stability.ai/community-license-agreement",
        aliases=(
            "Stability AI Community",
            "Stability AI Community License (limits on commercial use; read it at the source)",
        ),
    ),
    Licence(
        *("Stability AI Non-Commercial Research Community License", "non-commercial", "", _NC),
        "https://huggingface.co/stabilityai/sdxl-turbo/blob/main/LICENSE.md",
        aliases=("Stability AI Non-Commercial Research Community",),
    ),
    Licence(
        *("FLUX.1 [dev] Non-Commercial License", "non-commercial", "", _NC),
        "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
        aliases=("FLUX.1 [dev] Non-Commercial", "FLUX.1 [dev] Non-Commercial License (read it at the source)"),
    ),
    Licence(
        *("NVIDIA Source Code License", "non-commercial", "", _NC),
        "https://nvlabs.github.io/stylegan2-ada-pytorch/license.html",
        aliases=("NVIDIA Source Code License (non-commercial)",),
    ),
    Licence(
        *("Terms of Diffusion-GAN's weights", "non-commercial", "", _NC),
        "https://github.com/Zhendong-Wang/Diffusion-GAN",
        aliases=("non-commercial: trained with NVIDIA's code (Diffusion-GAN's authors)",),
    ),
    Licence(
        *("Omnidata Starter Dataset EULA", "non-commercial", "", f"{_NC}; research only"),
        "https://github.com/EPFL-VILAB/omnidata",
        aliases=(
            "Omnidata Starter Dataset EULA (non-commercial research)",
            "Omnidata Starter Dataset EULA: non-commercial research only; the weights are not part of this package",
        ),
    ),
)

_SENTENCES: dict[str, tuple[str, ...]] = {
    "MIT on its hub page; derived from Stable Diffusion 1.5, whose CreativeML-OpenRAIL-M applies": (
        "CreativeML-OpenRAIL-M",
        "MIT",
    ),
    "CreativeML-OpenRAIL-M, and that of InstructPix2Pix for the channels that read the picture": (
        "CreativeML-OpenRAIL-M",
        "MIT",
    ),
    "CreativeML-OpenRAIL++-M, and that of InstructPix2Pix for the channels that read the picture": (
        "CreativeML-OpenRAIL++-M",
        "CreativeML-OpenRAIL-M",
        "MIT",
    ),
    "MIT code (taming-transformers); the pictures it was trained on, FFHQ, are non-commercial": (
        "MIT",
        "CC-BY-NC-SA-4.0",  # FFHQ's, https://github.com/NVlabs/ffhq-dataset
    ),
}
"""Cards and registry entries that name several licences -> those licences."""

_DEFERRING = (
    "that of the weights you give",
    "that of the checkpoint you give; NVIDIA's are non-commercial",
    "Apache-2.0 (variant=small); CC-BY-NC-4.0 (base and large)",
)
"""Cards whose licence depends on the weights that were loaded, and is told by those."""


def recognise(text: str) -> tuple[Licence, ...]:
    """The licences that a text names, as "MIT" or "MIT AND CC-BY-4.0"; () for one that is not known as a whole."""
    if sentence := _BY_SENTENCE.get(_plain(text)):
        return tuple(_BY_NAME[_plain(name)] for name in sentence)
    found = [_BY_NAME.get(_plain(part)) for part in re.split(r"\s+AND\s+", text)]
    return tuple(licence for licence in found if licence) if all(found) else ()


def defers(text: str) -> bool:
    """Whether a card says that its licence is that of whichever weights are given."""
    return _plain(text) in {_plain(sentence) for sentence in _DEFERRING}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-.")


_BY_NAME = {_plain(name): licence for licence in LICENCES for name in (licence.name, licence.hub, *licence.aliases)}
_BY_NAME.pop("", None)
_BY_SENTENCE = {_plain(sentence): names for sentence, names in _SENTENCES.items()}
