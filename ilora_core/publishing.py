"""From an artefact's folder to the files that may be published, each named, nothing else.

    with prepared(folder, "owner/name") as ready:
        ready.files            # path in the repository, bytes, SHA-256
        ready.folder           # where they lie, in this layout, while the block lasts
        ready.chain            # licences

Of an artefact: adapter_config.json, adapter_model.safetensors, run.json, README.md, the generator's other layouts as run.json
lists them, and the card's pictures. A folder of several artefacts gives a sub-folder for each, with one card on top. Resume
points, checkpoints, logs, previews, hidden files and links out of the folder have no way in: there is a list of names, and
no list of exceptions.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ilora_core.artefact import CARD, CONFIG, RECORD, WEIGHTS, Artefact, check_tensors, find_artefacts, preview_grid
from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.files import file_sha256, write_json, write_text
from ilora_core.hub_places import HubPlace
from ilora_core.licences import Chain, licence_chain, merge_chains
from ilora_core.model_card import MARK, PREVIEW, folder_card, set_card
from ilora_core.scrubbing import local_traces, scrubbed

__all__ = ["LAYOUT", "PICTURES", "Ready", "Upload", "prepared"]

LAYOUT = "pytorch_lora_weights.safetensors"
"""What artefacts from before run.json listed their layouts may have beside peft's files."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([\w][\w.-]*)\)")
_PLAIN = re.compile(r"[\w][\w.+-]*")
_PICTURE_LIMIT = 10 * 2**20


@dataclass(frozen=True)
class Upload:
    """A file as it will be published. path: in the repository."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Ready:
    """All that is to be published, in `folder`. intrinsics: sub-folder ("" for the repository's root) -> map."""

    folder: Path
    files: tuple[Upload, ...]
    chain: Chain
    intrinsics: Mapping[str, str]


@contextmanager
def prepared(
    folder: Path | str, repository: str, *, revision: str = "", data_licence: str = "", preview: bool = True
) -> Iterator[Ready]:
    """Collect and check what `folder` has to publish. Nothing is sent.

    revision      the branch it is for, for the card's examples
    data_licence  what the pictures of a folder (--pairs, --pictures) are licensed under
    preview       whether preview.png, which shows held-out pictures, goes along
    Raises ArtefactError for what is incomplete, damaged, or still names a path of this machine.
    """
    folder = Path(folder)
    artefacts = find_artefacts(folder)
    for artefact in artefacts:
        if not artefact.folder.resolve().is_relative_to(folder.resolve()):
            raise ArtefactError(f"{artefact.folder} is a link out of {folder}. Push the folder that it leads to.")
    place = HubPlace(repository, revision="" if revision == "main" else revision)
    with tempfile.TemporaryDirectory(prefix="ilora-push-") as made:
        stage, records = Path(made), {}
        for artefact in artefacts:
            below = artefact.folder.name if len(artefacts) > 1 else ""
            record = _record(artefact, data_licence)
            where = replace(place, folder=below)
            _put(artefact, record, stage / below, where, preview=preview)
            records[below] = record
        if len(artefacts) > 1:
            _put_card(folder, stage, set_card(records, place=str(place)))
        files = tuple(_upload(path, stage) for path in sorted(stage.rglob("*")) if path.is_file())
        chain = merge_chains({below: licence_chain(record) for below, record in records.items()})
        yield Ready(stage, files, chain, {below: record["intrinsic"]["name"] for below, record in records.items()})


def _record(artefact: Artefact, data_licence: str) -> dict[str, Any]:
    """run.json without paths, with the licence of the pictures where the user states it."""
    record = scrubbed(artefact.record)
    if data_licence:
        parts = [part for part in ("pairs", "pictures") if record.get("config", {}).get(part)]
        if not parts:
            raise ConfigError(
                "--data-licence is for pictures from a folder (--pairs, --pictures); these came from elsewhere."
            )
        record["licences"] = {**record.get("licences", {}), parts[0]: data_licence}
    return record


def _put(artefact: Artefact, record: Mapping[str, Any], stage: Path, place: HubPlace, *, preview: bool) -> None:
    """One artefact's files."""
    artefact.intrinsic  # noqa: B018, raises for a record that does not describe one
    folder, config = artefact.folder, scrubbed(artefact.config)
    stage.mkdir(exist_ok=True)
    for name in (WEIGHTS, *_layouts(artefact.record, folder)):
        source = _inside(folder, name)
        check_tensors(source)
        (stage / name).symlink_to(source)  # may be large: read where it is
    for name, before, after in ((CONFIG, artefact.config, config), (RECORD, artefact.record, record)):
        source = _inside(folder, name)
        if before == after:
            shutil.copyfile(source, stage / name)
        else:
            write_json(stage / name, after)
    shown = folder / PREVIEW if (folder / PREVIEW).is_file() else preview_grid(folder, record)
    if preview and shown.is_file():
        _put_picture(folder, str(shown.relative_to(folder)), stage / PREVIEW)
    fresh = folder_card(folder, record, config, place=str(place), preview=(stage / PREVIEW).is_file())
    _put_card(folder, stage, fresh)


def _layouts(record: Mapping[str, Any], folder: Path) -> list[str]:
    """The generator's other files, as recorded when they were written."""
    names = record.get("layouts", [LAYOUT] if (folder / LAYOUT).is_file() else [])
    for name in names:
        if not _PLAIN.fullmatch(str(name)) or not str(name).endswith(".safetensors"):
            raise ArtefactError(f"{folder / RECORD} lists {name!r}, which is no .safetensors file in that folder.")
    return [name for name in names if name != WEIGHTS]


def _put_card(folder: Path, stage: Path, fresh: str) -> None:
    """The folder's own README.md where somebody wrote it (it has front matter, and not ilora's mark), else a fresh card."""
    text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    if not text.lstrip().startswith("---") or MARK in text:
        write_text(stage / CARD, fresh)
        return
    from huggingface_hub import ModelCard

    try:
        ModelCard(text)
    except Exception as error:  # yaml's own classes and ValueError
        raise ArtefactError(
            f"the front matter of {folder / CARD} cannot be read ({type(error).__name__}). Correct it, or delete the file: "
            "`ilora push` then writes a fresh card."
        ) from error
    write_text(stage / CARD, text)
    for name in dict.fromkeys(_IMAGE.findall(text)):
        if Path(name).suffix.lower() in PICTURES and name != PREVIEW and (folder / name).is_file():
            _put_picture(folder, name, stage / name)


def _put_picture(folder: Path, name: str, target: Path) -> None:
    source = _inside(folder, name)
    if source.stat().st_size > _PICTURE_LIMIT:
        raise ArtefactError(
            f"{folder / name} is larger than {_PICTURE_LIMIT >> 20} MiB. Make the card's picture smaller."
        )
    shutil.copyfile(source, target)


def _inside(folder: Path, name: str) -> Path:
    """The file itself. Raises ArtefactError if it is missing, or a link to somewhere else."""
    path = (folder / name).resolve()
    if not path.is_file():
        raise ArtefactError(f"{folder / name} is missing. Finish the fit with --resume, or fit again.")
    if not path.is_relative_to(folder.resolve()):
        raise ArtefactError(f"{folder / name} is a link out of the folder. Put the file itself there.")
    return path


def _upload(path: Path, stage: Path) -> Upload:
    name = path.relative_to(stage).as_posix()
    if trace := local_traces(_readable(path)):
        raise ArtefactError(
            f"{name} names {trace!r}, which should not be published. Take it out of the file and push again; nothing was sent."
        )
    return Upload(name, path.stat().st_size, file_sha256(path))


def _readable(path: Path) -> str:
    """What a file says in words: of safetensors the header's metadata."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return json.dumps(file.metadata() or {})
    return path.read_bytes().decode("utf-8", errors="replace")
