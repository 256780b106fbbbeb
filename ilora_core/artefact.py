"""A trained adapter as a folder that peft, diffusers and ilora can each load.

    adapter_config.json, adapter_model.safetensors    peft's own format
    run.json                                          what it is, how it was made, under which licences
    README.md                                         the same for people and for the hub: a model card
    preview.png                                       held-out pictures as the kept adapter draws them, if there were any
    further files                                     the generator's other layouts, e.g. diffusers' own LoRA file

A folder of such folders (what `ilora fit` writes) is a set of artefacts, one per intrinsic.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ilora_core import __version__
from ilora_core.errors import ArtefactError
from ilora_core.files import atomic_path, read_json, write_json, write_text
from ilora_core.intrinsics import Intrinsic
from ilora_core.model_card import PREVIEW, folder_card
from ilora_core.protocols import Generator

__all__ = [
    "CARD",
    "CONFIG",
    "RECORD",
    "WEIGHTS",
    "Artefact",
    "check_tensors",
    "find_artefacts",
    "load_artefact",
    "preview_grid",
    "save_adapter",
    "save_artefact",
]

CONFIG, WEIGHTS, RECORD = "adapter_config.json", "adapter_model.safetensors", "run.json"
CARD = "README.md"


@dataclass(frozen=True)
class Artefact:
    """An adapter read back: run.json, adapter_config.json, and the weights when `tensors` is asked for them.

    folder  where it lies; of one that was imported and is not written yet, the file it came from
    loaded  the weights of such a one
    """

    folder: Path
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    loaded: Mapping[str, Tensor] | None = None

    @property
    def intrinsic(self) -> Intrinsic:
        """What it draws, with its declared channels, range and encoding."""
        return Intrinsic.from_json(self.record["intrinsic"])

    @property
    def generator(self) -> str:
        """The generator's card name."""
        return self.record["generator"]["name"]

    @property
    def generator_settings(self) -> dict[str, Any]:
        """The settings the generator was made with."""
        return dict(self.record["generator"]["settings"])

    def tensors(self) -> dict[str, Tensor]:
        """The adapter's weights. Raises ArtefactError for a damaged file."""
        return _load_tensors(self.folder / WEIGHTS) if self.loaded is None else dict(self.loaded)


def save_adapter(folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write an adapter in peft's format, whole or not at all."""
    with atomic_path(folder / WEIGHTS) as path:
        save_file(dict(state), path, metadata={"format": "pt"})
    write_json(folder / CONFIG, config)


def save_artefact(
    folder: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    generator: Generator,
) -> None:
    """Write the whole artefact. run.json comes last: a folder without it is not finished."""
    save_adapter(folder, state, config)
    layouts = generator.layouts(state, config)
    for name, (tensors, metadata) in layouts.items():
        with atomic_path(folder / name) as path:
            save_file(dict(tensors), path, metadata=dict(metadata))
    record = {**record, "layouts": sorted(layouts)}
    _keep_preview(folder, record)
    write_text(folder / CARD, folder_card(folder, record, config))
    write_json(folder / RECORD, {"ilora": __version__, **record})


def load_artefact(folder: Path | str) -> Artefact:
    """Read an artefact's records. Raises ArtefactError that says what is missing or wrong."""
    folder = Path(folder)
    for name in (RECORD, CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ArtefactError(
                f"{folder} is not a finished ilora artefact: it has no {name}. "
                "Give the folder that `ilora fit` wrote, or finish the fit with --resume."
            )
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or not {"intrinsic", "generator"} <= set(record):
        raise ArtefactError(f"{folder / RECORD} does not describe an adapter (no 'intrinsic' or 'generator' in it).")
    return Artefact(folder, record, read_json(folder / CONFIG))


def find_artefacts(path: Path | str) -> list[Artefact]:
    """The artefact at `path`, or those one level below it, in alphabetical order."""
    path = Path(path)
    if not path.is_dir():
        raise ArtefactError(f"there is no folder {path}. Give the folder that `ilora fit` wrote.")
    if (path / WEIGHTS).is_file():
        return [load_artefact(path)]
    found = [load_artefact(child) for child in sorted(path.iterdir()) if (child / WEIGHTS).is_file()]
    if not found:
        raise ArtefactError(f"{path} holds no adapter. Give the folder that `ilora fit` wrote.")
    return found


def check_tensors(path: Path) -> None:
    """Refuse a file that is no safetensors file, is cut short, or holds nothing. Its tensors are not read."""
    try:
        with safe_open(path, framework="pt") as file:
            empty = not list(file.keys())
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtefactError(_damaged(path, error)) from error
    if empty:
        raise ArtefactError(f"{path} holds no tensor. Fit it again from its run.json.")


def preview_grid(folder: Path, record: Mapping[str, Any]) -> Path:
    """Where whoever runs a fit puts the preview grid of the step that was kept."""
    step = (record.get("best") or {}).get("step")
    return folder / "previews" / f"step_{step or 0:06d}.png"


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error}). Fetch it again, or fit it again from its run.json."


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtefactError(_damaged(path, error)) from error


def _keep_preview(folder: Path, record: Mapping[str, Any]) -> None:
    """The preview grid of the step that was kept, where whoever runs the fit wrote one, as the card's picture."""
    grid = preview_grid(folder, record)
    if grid.is_file():
        with atomic_path(folder / PREVIEW) as path:
            shutil.copyfile(grid, path)
