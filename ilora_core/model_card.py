"""A model card: README.md with front matter that the Hugging Face Hub reads, from what an artefact's folder holds.

    text = model_card(record, config)                        # run.json and adapter_config.json, as plain data
    text = folder_card(folder, record, config, place=...)    # the same with the folder's preview and evaluation
    text = set_card({"normals": record, ...}, place=...)     # one page above several adapters

The same input gives the same text. A card ends with MARK; `ilora push` writes a card that has it anew, and leaves one without
it as it stands. Absolute paths of this machine are never named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ilora_core.evaluate_results import Results, read_results
from ilora_core.hub_places import HubPlace
from ilora_core.intrinsics import Intrinsic
from ilora_core.licences import Chain, licence_chain, merge_chains
from ilora_core.model_card_facts import (
    base_model,
    drawn_by,
    file_name,
    held_out_row,
    recipe_rows,
    result_rows,
    scores_of,
    what_it_draws,
)

__all__ = ["EVALUATION", "MARK", "PREVIEW", "folder_card", "model_card", "set_card"]

PREVIEW, EVALUATION = "preview.png", "evaluation.json"
MARK = "<!-- Written by ilora, and anew by `ilora push`. Without this line the card is left as it stands. -->"
_PLACE = "hf://OWNER/NAME"
_LAYOUT = "pytorch_lora_weights.safetensors"
_HOME = "[ilora](https://arxiv.org/abs/2311.17137)"


def folder_card(
    folder: Path,
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    place: str = _PLACE,
    preview: bool | None = None,
    use: str = "",
) -> str:
    """The card of an artefact's folder, with the evaluation.json in it that `ilora evaluate --json` wrote.

    preview  whether the card shows preview.png; None = if it is in the folder
    use      what stands under "How to use it"; "" = how an artefact is used
    """
    evaluation = folder / EVALUATION
    results = read_results(evaluation) if evaluation.is_file() else {}
    shown = (folder / PREVIEW).is_file() if preview is None else preview
    return model_card(record, config, place=place, preview=shown, results=results, use=use)


def model_card(
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    place: str = _PLACE,
    preview: bool = False,
    results: Results | None = None,
    use: str = "",
) -> str:
    """One adapter's card.

    place    where it will be, as `ilora predict --adapter` takes it
    preview  whether preview.png lies beside it
    results  of evaluations of its maps: protocol -> method -> Evaluation; the first method is this adapter's
    use      as of `folder_card`
    """
    results, chain = results or {}, licence_chain(record)
    name, title = record["intrinsic"]["name"], drawn_by(record)
    scores = scores_of(record, results)
    parts = [
        _front_matter([record], chain, scores, title),
        f"# {title}\n\nAn adapter of {_HOME} that makes the frozen generator `{record['generator']['name']}` draw {name}.",
        f"![Held-out pictures: input, prediction, target]({PREVIEW})" if preview else "",
        f"## What it draws\n\n{what_it_draws(Intrinsic.from_json(record['intrinsic']))}",
        f"## How to use it\n\n{use or _usage(record, place)}",
        f"## How good it is\n\n{_figures(record, results)}",
        f"## How it was made\n\n{_table(('what', 'how'), recipe_rows(record, config))}{_repeat(record)}",
        _licences(chain),
        MARK,
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def set_card(records: Mapping[str, Mapping[str, Any]], *, place: str = _PLACE) -> str:
    """The card above several adapters. records: sub-folder -> run.json."""
    chain = merge_chains({name: licence_chain(record) for name, record in records.items()})
    names = [record["intrinsic"]["name"] for record in records.values()]
    generators = list(dict.fromkeys(record["generator"]["name"] for record in records.values()))
    title = f"{', '.join(names)} drawn by {', '.join(generators)}"
    scores = [score for record in records.values() for score in scores_of(record, {})]
    rows = [(f"[{f}]({f}/README.md)", r["intrinsic"]["name"], *held_out_row(r)) for f, r in records.items()]
    one = replace(HubPlace.parse(place), folder=next(iter(records)))
    use = f"""```bash
ilora predict PICTURES --adapter {place}                # all of them, in one pass where the generator can
ilora predict PICTURES --adapter {one}
ilora pull {place} --out DIR
```"""
    parts = [
        _front_matter(list(records.values()), chain, scores, title),
        f"# {title}\n\n{len(records)} adapters of {_HOME}, one per sub-folder, each with a card of its own.",
        _table(("folder", "map", "metric", "value", "held-out pictures"), rows),
        f"## How to use them\n\n{use}",
        _licences(chain),
        MARK,
    ]
    return "\n\n".join(parts) + "\n"


def _repeat(record: Mapping[str, Any]) -> str:
    """What repeats the fit, of an adapter that was fitted here."""
    if "config" not in record:
        return ""
    return (
        "\n\n`run.json` holds all settings; `ilora fit --from run.json --out DIR` repeats the fit where its data are."
    )


def _front_matter(
    records: Sequence[Mapping[str, Any]], chain: Chain, scores: Iterable[Mapping[str, Any]], title: str
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    bases = list(dict.fromkeys(base for base in map(base_model, records) if base))
    names = [record["intrinsic"]["name"] for record in records]
    results = [EvalResult(**score) for score in scores]
    data = ModelCardData(
        **chain.hub_metadata(),
        base_model=(bases[0] if len(bases) == 1 else bases) or None,
        library_name="ilora",
        pipeline_tag="image-to-image",
        tags=["ilora", "intrinsic-lora", *(str(r.get("adapter", "lora")) for r in records), *names],
        **({"base_model_relation": "adapter"} if bases else {}),
        **({"model_name": title, "eval_results": results} if results else {}),
    )
    return f"---\n{data.to_yaml()}\n---"


def _usage(record: Mapping[str, Any], place: str) -> str:
    at = HubPlace.parse(place)
    told = f"""```bash
ilora predict PICTURES --adapter {place}
ilora pull {place} --out DIR                 # to keep it; DIR is then what --adapter takes
```"""
    base = base_model(record)
    given = record["generator"].get("settings", {}).get("weights")
    if given and not base:
        told += (
            f"\n\nThe generator's weights were a local file or folder, `{file_name(given)}`, and are not here: add "
            "`--set generator.weights=PATH`."
        )
    if _LAYOUT in record.get("layouts", (_LAYOUT,) if base else ()):
        told += "\n\n" + _diffusers(record, at, base)
    return told


def _diffusers(record: Mapping[str, Any], at: HubPlace, base: str) -> str:
    where = f'"{at.repository}"' + (f', subfolder="{at.folder}"' if at.folder else "")
    where += f', revision="{at.revision}"' if at.revision else ""
    plugin, prompt = record["generator"].get("plugin", ""), record["intrinsic"].get("prompt", "")
    return f"""`{_LAYOUT}` is the same adapter for plain diffusers:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained({f'"{base}"' if base else "BASE_MODEL"})
pipe.load_lora_weights({where})
```

The pipeline's own call draws pictures, not maps. What a map takes (which latent goes in, at which timestep, with the prompt
"{prompt}") is in the README of the plugin {plugin}; `ilora predict` does it."""


def _figures(record: Mapping[str, Any], results: Results) -> str:
    columns = ("metric", "value", "held-out pictures")
    row = held_out_row(record)
    told = "It was not validated." if row[1] == "not validated" else _table(columns, [row])
    if row[1] != "not validated":
        told += (
            "\n\nValidation of the fit: the mean of each picture's figure over pictures that were held out. The step that was "
            "kept was chosen by this figure on these pictures; no interval was recorded."
        )
    if results:
        header = ("protocol", "method", "figure", "value", "95 % interval", "pictures")
        told += f"\n\nEvaluation (`ilora evaluate`):\n\n{_table(header, result_rows(results))}"
    return told


def _licences(chain: Chain) -> str:
    rows = [(link.part, link.name, link.text, link.kind) for link in chain.links]
    said = {
        "yes": "No licence in the chain rules commercial use out.",
        "no": "Not for commercial use: a licence in the chain rules it out.",
        "with conditions": "Commercial use is subject to the terms below.",
        "unclear": "Whether commercial use is allowed is unclear: something in the chain has to be checked.",
    }
    parts = [
        "## Licences",
        "An adapter comes under the conditions of its generator, of what labelled its pictures, and of the pictures. This table "
        "reads recorded licence names; it is no legal advice.",
        _table(("part", "name", "licence", "class"), rows),
        said[chain.commercial],
        "To be passed on:\n\n" + "\n".join(f"- {term}" for term in chain.terms) if chain.terms else "",
        "To be looked at:\n\n" + "\n".join(f"- {flag}" for flag in chain.flags) if chain.flags else "",
    ]
    return "\n\n".join(filter(None, parts))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(str(cell).replace('|', '&#124;').split()) for cell in line)} |" for line in lines
    )
