"""Lightning checkpoints of taming-transformers, and the yaml beside them, read without running anything they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ilora_core.checkpoints import LEFTOVERS, read_tensors
from ilora_core.errors import WeightsError

__all__ = ["find_checkpoint", "find_config", "read_checkpoint", "read_config"]

_LEFTOVERS = (*LEFTOVERS, "taming.")


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the one in a project's folder. Raises WeightsError when there is none."""
    if path.is_file():
        return path
    last = [p for p in (path / "checkpoints" / "last.ckpt", path / "last.ckpt") if p.is_file()]
    others = [*sorted(path.glob("checkpoints/*.ckpt")), *sorted(path.glob("*.ckpt"))]
    if not last and len(others) > 1:
        names = ", ".join(p.name for p in others)
        raise WeightsError(f"{path} holds several checkpoints ({names}) and no last.ckpt. Name the file you mean.")
    if not last and not others:
        raise WeightsError(
            f"{path} holds neither first_stage/ (a converted VQGAN), nor a VQModel of diffusers, nor a .ckpt of "
            "taming-transformers. Check the path."
        )
    return (last or others)[0]


def find_config(checkpoint: Path) -> Path | None:
    """The project's yaml where taming-transformers leaves it, or None. Of several runs' the last one counts."""
    near = (checkpoint.parent, checkpoint.parent.parent)
    for pattern in ("configs/*-project.yaml", "*-project.yaml", "configs/model.yaml", "model.yaml"):
        for folder in near:
            if found := sorted(folder.glob(pattern)):
                return found[-1]
    own = checkpoint.with_suffix(".yaml")
    return own if own.is_file() else None


def read_config(path: Path) -> Any:
    """A yaml as plain data. Raises WeightsError for a broken one, and for one that asks to run something."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} cannot be read as a yaml: {line}. Download it again.") from error


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Its tensors by name. Raises WeightsError for a file that is missing, incomplete or holds more than weights."""
    return read_tensors(path, leftovers=_LEFTOVERS)
