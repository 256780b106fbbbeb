"""Artefacts in repositories of the Hugging Face Hub: publish what was prepared, fetch what is one.

    push(ready, "owner/name")                    # what `ilora_core.publishing` prepared
    cached(HubPlace.parse("hf://owner/name"))    # a folder in the hub's cache, with what `predict` needs
    pull(HubPlace.parse(...), Path("mine"))      # all of an artefact's files, in a folder of one's own

Access is the hub library's own: `hf auth login` or HF_TOKEN. Nothing here takes, shows or keeps a token. Only files with an
artefact's names are fetched, safetensors and JSON: a repository's pickles stay where they are.
"""

from __future__ import annotations

import glob
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilora_core import __version__
from ilora_core.artefact import CARD, CONFIG, RECORD, WEIGHTS, Artefact, check_tensors, find_artefacts
from ilora_core.errors import ArtefactError, ConfigError, HubError
from ilora_core.files import atomic_path
from ilora_core.hub_errors import hub_errors, is_offline
from ilora_core.hub_places import HubPlace
from ilora_core.publishing import PICTURES, Ready

__all__ = ["cached", "pull", "push", "wanted_files"]

_log = logging.getLogger("ilora")
_NEEDED = (CONFIG, WEIGHTS, RECORD)
_LIMIT = 16 * 2**30
_SMALL_LIMIT = 8 * 2**20
"""Bytes of all files together, and of one JSON file or card."""


def push(
    ready: Ready, repository: str, *, private: bool = False, revision: str = "", message: str = ""
) -> dict[str, str]:
    """Publish the prepared files in one commit, in a repository that is made if need be; its address and the commit.

    private   make a new repository private; refused where there is a public one already
    revision  the branch to commit to, made if need be; "" = main
    Raises HubError.
    """
    api = _api()
    allowed = [glob.escape(upload.path) for upload in ready.files]
    with hub_errors("push to", repository):
        api.create_repo(repository, exist_ok=True, **({"private": True} if private else {}))
        if private and not api.model_info(repository).private:
            raise HubError(
                f"{repository} exists and is public; nothing was sent. Make it private on its page, or name another."
            )
        if revision and revision != "main":
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit: Any = api.upload_folder(
            repo_id=repository,
            folder_path=ready.folder,
            allow_patterns=allowed,
            revision=revision or None,
            commit_message=message or f"{', '.join(ready.intrinsics.values())} by ilora {__version__}",
        )
    return {"url": f"{api.endpoint}/{repository}", "commit": str(getattr(commit, "oid", ""))}


def cached(place: HubPlace, *, local_only: bool = False) -> Path:
    """The folder in the hub's cache that holds an artefact, or a set of them, with the files that drawing needs.

    local_only  open no connection. Without it, the cache serves too where the hub is out of reach.
    Raises HubError, or ArtefactError where the repository holds no artefact.
    """
    if local_only or is_offline():
        return _from_cache(place)
    try:
        names = _listed(place, only=_NEEDED)
    except HubError as error:
        if not error.unreachable:
            raise
        folder = _from_cache(place, why=error)
        _log.warning("%s; taken from the hub's cache", str(error).rstrip("."))
        return folder
    with hub_errors("fetch", place.repository):
        return _download(place, names) / place.folder


def pull(place: HubPlace, out: Path) -> list[Artefact]:
    """Fetch an artefact, or a set of them, into the new folder `out`, whole or not at all; what is there then.

    Raises ConfigError if `out` exists, HubError, or ArtefactError for what is no artefact of ilora's.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists already. Choose another --out.")
    names = _listed(place)
    with atomic_path(out) as draft, tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
        with hub_errors("fetch", place.repository):
            fetched = _download(place, names, into=Path(made) / "files") / place.folder
        shutil.rmtree(fetched / ".cache", ignore_errors=True)  # the hub library's notes
        check_artefacts(fetched)
        fetched.rename(draft)
    return find_artefacts(out)


def check_artefacts(folder: Path) -> list[Artefact]:
    """The artefacts of a fetched folder, with whole safetensors and a map that can be read. Raises ArtefactError."""
    artefacts = find_artefacts(folder)
    for artefact in artefacts:
        try:
            artefact.intrinsic  # noqa: B018, reads the record
            named = artefact.generator, artefact.generator_settings
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{artefact.folder / RECORD} does not describe an adapter ({error}).") from error
        if not all(named[:1]):
            raise ArtefactError(f"{artefact.folder / RECORD} names no generator.")
        for path in artefact.folder.glob("*.safetensors"):
            check_tensors(path)
    return artefacts


def wanted_files(sizes: Mapping[str, int], place: HubPlace, *, only: tuple[str, ...] = ()) -> list[str]:
    """Which of a repository's files are an artefact's, or a set's. sizes: path -> bytes; only: these names.

    Raises ArtefactError where there is none, or more than a reader should take.
    """
    root = f"{place.folder}/" if place.folder else ""
    below = [path[len(root) :] for path in sizes if path.startswith(root)]
    folders = _folders(below)
    if not folders:
        raise ArtefactError(_no_artefact(place, below))
    chosen = [path for path in below if _belongs(path, folders, only)]
    if CARD in below and "" not in folders and not only:
        chosen.append(CARD)
    for path in chosen:
        small = not path.endswith((".safetensors", *PICTURES))
        if small and sizes[root + path] > _SMALL_LIMIT:
            raise ArtefactError(
                f"{path} of {place} is larger than {_SMALL_LIMIT >> 20} MiB: no file that ilora writes."
            )
    if (total := sum(sizes[root + path] for path in chosen)) > _LIMIT:
        raise ArtefactError(f"{place} is {total / 2**30:.0f} GiB, more than {_LIMIT >> 30}. Fetch one of its folders.")
    return sorted(root + path for path in chosen)


def _folders(below: list[str]) -> set[str]:
    """Where the artefacts are: "" for here, else names of folders."""
    if {WEIGHTS, RECORD} <= set(below):
        return {""}
    at = {
        name: {p.rpartition("/")[0] for p in below if p.count("/") == 1 and p.endswith(f"/{name}")} for name in _NEEDED
    }
    return set.intersection(*at.values())


def _belongs(path: str, folders: set[str], only: tuple[str, ...]) -> bool:
    folder, _, name = path.rpartition("/")
    if folder not in folders or name.startswith("."):
        return False
    return name in only if only else name in (*_NEEDED, CARD) or name.lower().endswith((".safetensors", *PICTURES))


def _no_artefact(place: HubPlace, below: list[str]) -> str:
    if not below:
        return f"{place} holds nothing. Check the name of the {'folder' if place.folder else 'repository, and its branch'}."
    names = {path.rpartition("/")[2] for path in below}
    if WEIGHTS in names:
        return f"{place} holds an adapter's weights, but no {RECORD} and {CONFIG} beside them: no artefact of ilora's."
    if pickles := sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))):
        return f"{place} holds {pickles[0]}, a pickle, which is never loaded, and no {WEIGHTS}: no artefact of ilora's."
    return f"{place} holds no {WEIGHTS}: no artefact of ilora's. Check the repository and the folder in it."


def _listed(place: HubPlace, *, only: tuple[str, ...] = ()) -> list[str]:
    """The artefact's files by the hub's own listing."""
    with hub_errors("fetch", place.repository):
        info = _api().model_info(place.repository, revision=place.revision or None, files_metadata=True)
    return wanted_files({one.rfilename: one.size or 0 for one in info.siblings or ()}, place, only=only)


def _download(place: HubPlace, names: list[str], *, into: Path | None = None) -> Path:
    patterns, revision = [glob.escape(name) for name in names], place.revision or None
    where = {"local_dir": into} if into else {}
    return Path(_api().snapshot_download(place.repository, revision=revision, allow_patterns=patterns, **where))


def _from_cache(place: HubPlace, *, why: HubError | None = None) -> Path:
    """What an earlier call left in the hub's cache. why: the error to raise where that is not enough."""
    try:
        folder = _cached_snapshot(place) / place.folder
        find_artefacts(folder)
    except Exception as error:  # the hub's library raises unrelated classes; each means: not there
        missing = (
            f"the hub's cache does not hold all of {place}, and no connection may be opened. Unset HF_HUB_OFFLINE."
        )
        raise why or HubError(missing, unreachable=True) from error
    return folder


def _cached_snapshot(place: HubPlace) -> Path:
    from huggingface_hub import snapshot_download

    names = [f"{place.folder}/{name}" if place.folder else f"*{name}" for name in _NEEDED]
    revision = place.revision or None
    try:
        return Path(snapshot_download(place.repository, revision=revision, allow_patterns=names, local_files_only=True))
    except Exception as error:
        # Files that match and that nobody fetched, such as checkpoints', make it incomplete to the hub's library alone.
        if partial := getattr(error, "snapshot_path", ""):
            return Path(partial)
        raise


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="ilora", library_version=__version__)
