"""A VQGAN from a checkpoint of taming-transformers, from what `convert` wrote, or from a diffusers VQModel.

first_stage/  diffusers' VQModel          prior/  transformers' GPT2LMHeadModel, where there is one
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.files import atomic_path, read_json
from ilora_core.pretrained import load_pretrained, misfits
from ilora_vqgan.architecture import Architecture, from_shapes, from_yaml, reconcile
from ilora_vqgan.checkpoint import find_checkpoint, find_config, read_checkpoint, read_config
from ilora_vqgan.hub import find_weights
from ilora_vqgan.key_map import dropped, map_first_stage, map_prior

__all__ = ["Components", "convert", "empty_networks", "load_checkpoint", "load_components", "load_folder"]

_log = logging.getLogger("ilora")
_FIRST_STAGES = ("first_stage", "vqvae", "movq", "")  # where a folder may keep its VQModel; "" = at the top


@dataclass(frozen=True)
class Components:
    """A VQModel and, where there is one, its prior; float32, on the CPU. start: the token before every sequence.

    without_prior  why there is no prior
    provenance     plain data for run.json
    """

    first_stage: nn.Module
    prior: nn.Module | None = None
    start: int = 0
    without_prior: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


def load_components(
    weights: str, *, config: str | None = None, revision: str | None = None, local_only: bool = False
) -> Components:
    """Load from wherever `weights` points.

    weights     a .ckpt, a project's folder, what `ilora convert` wrote, a folder or hub id with a diffusers VQModel, or a
                name in registry.toml
    config      the project's yaml, where it does not lie beside the checkpoint
    local_only  take what the hub's cache holds and open no connection
    Raises WeightsError that says what is wrong and where.
    """
    path, provenance = find_weights(weights, revision=revision, local_only=local_only)
    if path.is_dir() and _first_stage_folder(path) is not None:
        if config:
            raise ConfigError(
                f"generator.config belongs to a checkpoint, but {path} is a folder with its own config.json."
            )
        return load_folder(path, provenance=provenance)
    return load_checkpoint(find_checkpoint(path), config=config, provenance=provenance)


def load_folder(folder: Path, *, provenance: Mapping[str, Any] | None = None) -> Components:
    """A converted VQGAN or a diffusers folder: first_stage/ (or vqvae/, or at the top), and prior/ if it is there."""
    from diffusers.models.autoencoders.vq_model import VQModel
    from transformers import GPT2LMHeadModel

    place = _first_stage_folder(folder)
    if place is None:
        raise WeightsError(f"{folder} holds no VQModel: first_stage/config.json is missing. Convert it again.")
    first_stage: Any = load_pretrained(VQModel, place)
    prior: Any = None
    if (folder / "prior" / "config.json").is_file():
        prior = load_pretrained(GPT2LMHeadModel, folder / "prior")
        _require_fit(first_stage, prior, folder)
    return Components(
        first_stage,
        prior,
        int(getattr(prior.config, "start_token", 0)) if prior is not None else 0,
        "" if prior is not None else f"{folder} has no prior/",
        dict(provenance or {"weights": str(folder)}),
    )


def load_checkpoint(
    path: Path, *, config: str | Path | None = None, provenance: Mapping[str, Any] | None = None
) -> Components:
    """The parts of a taming-transformers checkpoint. Raises WeightsError that names what does not fit."""
    state = {key: value for key, value in read_checkpoint(path).items() if not dropped(key)}
    found = from_shapes({key: tuple(value.shape) for key, value in state.items()}, path)
    said = Path(config).expanduser() if config else find_config(path)
    if said is not None:
        found = reconcile(from_yaml(read_config(said), said), found, said)
    _log.info("weights %s: configuration from %s", path, said or "the shapes of its tensors")
    if found.prior is not None and not found.prior.heads:
        raise WeightsError(
            f"{path} holds a prior, but no tensor says how many heads it has. Put the project's *-project.yaml beside the "
            "checkpoint (configs/), or give it with --set generator.config=FILE."
        )
    first_stage, prior = empty_networks(found)
    filled = [(first_stage, *map_first_stage(_of_first_stage(state, found), len(found.first_stage.mult)))]
    if prior is not None:
        filled.append((prior, *map_prior(_under("transformer.", state))))
    _require_keys(filled, path)
    for network, mapped, _ in filled:
        network.load_state_dict(
            {k: v.to(torch.float32, copy=True).contiguous() for k, v in mapped.items()}, assign=True
        )
    start = found.prior.start if found.prior else 0
    where = {**(provenance or {"weights": str(path)}), "config": str(said) if said else "inferred from shapes"}
    return Components(first_stage, prior, start, found.without_prior, where)


def convert(source: Path, out: Path) -> dict[str, Any]:
    """Write a checkpoint (a file, or a project's folder) as a folder first_stage/ + prior/ of safetensors; facts about it.

    The folder appears whole or not at all, and replaces one of that name. Nothing that the checkpoint holds is executed.
    """
    components = load_checkpoint(find_checkpoint(Path(source)))
    parts = {"first_stage": components.first_stage, "prior": components.prior}
    facts: dict[str, Any] = {"configuration": Path(str(components.provenance["config"])).name}
    with atomic_path(out) as draft:
        for name, part in parts.items():
            if part is not None:
                saved: Any = part
                saved.save_pretrained(draft / name)
                facts[f"{name} parameters"] = sum(p.numel() for p in part.parameters())
        for file in draft.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes for its owner alone
    if components.prior is None:
        facts["prior"] = f"none: {components.without_prior}"
    return facts


def empty_networks(architecture: Architecture) -> tuple[Any, Any]:
    """(VQModel, GPT2LMHeadModel or None) on the meta device, in eval mode."""
    from diffusers.models.autoencoders.vq_model import VQModel
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):
        first_stage: Any = VQModel.from_config(architecture.first_stage.config())
        prior = GPT2LMHeadModel(GPT2Config(**architecture.prior.config())) if architecture.prior else None
    return first_stage.eval(), prior and prior.eval()


def _of_first_stage(state: Mapping[str, Tensor], found: Architecture) -> dict[str, Tensor]:
    """All that is not the prior's; beside a prior that is left out also what that one was conditioned on."""
    whole = _under("first_stage_model.", state)
    if whole and found.prior is None:
        return whole
    return {k.removeprefix("first_stage_model."): v for k, v in state.items() if not k.startswith("transformer.")}


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _require_keys(filled: list[tuple[Any, dict[str, Tensor], list[str]]], path: Path) -> None:
    """Raise one WeightsError that names what is unexpected, missing or of another shape."""
    complaints = [
        f"its {type(network).__name__} {misfit}"
        for network, tensors, unknown in filled
        for misfit in misfits(network, tensors, unknown=unknown)
    ]
    if complaints:
        raise WeightsError(
            f"{path} does not fit its own architecture: {'; '.join(complaints)}. Is the file complete, and a VQGAN of "
            "taming-transformers?"
        )


def _require_fit(first_stage: Any, prior: Any, where: Path) -> None:
    if prior.config.vocab_size != first_stage.config.num_vq_embeddings:
        raise WeightsError(
            f"{where}: the prior knows {prior.config.vocab_size} codes, the codebook has "
            f"{first_stage.config.num_vq_embeddings}. prior/ and first_stage/ come from different models."
        )


def _first_stage_folder(folder: Path) -> Path | None:
    """Where a folder keeps a VQModel, or None."""
    for name in _FIRST_STAGES:
        config = folder / name / "config.json"
        if config.is_file() and read_json(config).get("_class_name", "VQModel") == "VQModel":
            return config.parent
    return None
