"""A trained adapter for other tools.

    diffusers  pytorch_lora_weights.safetensors, which `pipe.load_lora_weights(folder)` reads
    kohya      one file that ComfyUI, A1111-like pages and diffusers read
    comfyui    that file, and a workflow which draws the map in one step with ComfyUI's own nodes
    onnx       picture in, map out, in one file (`ilora_core.interchange.onnx`)
    merged     a diffusers pipeline whose network has the adapter in its weights

Everything goes into one new folder with its model card, written whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ilora_core.artefact import CARD, Artefact
from ilora_core.config import RuntimeConfig
from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.files import atomic_path, write_text
from ilora_core.interchange.layouts import kohya_name
from ilora_core.interchange.networks import network_for
from ilora_core.model_card import PREVIEW, folder_card
from ilora_core.plugins import PluginHost, load_plugins

__all__ = ["TARGETS", "Exported", "check_target", "export_adapter", "kohya_layout"]


@dataclass(frozen=True)
class Exported:
    """What was written. notes: figures of its check, for the user."""

    folder: Path
    files: tuple[str, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    artefact: Artefact
    settings: Mapping[str, Any]
    host: PluginHost
    folder: Path

    def generator(self) -> Any:
        """Its generator, for the layers' names."""
        return network_for(self.artefact.generator, {**self.artefact.generator_settings, **self.settings}, self.host)

    def predictor(self) -> Any:
        """The generator with its weights and the adapter on it."""
        from ilora_core.predict import Predictor

        runtime = RuntimeConfig(device="cpu")
        return Predictor([self.artefact], runtime=runtime, settings=self.settings, host=self.host)


def export_adapter(
    artefact: Artefact,
    to: str,
    folder: Path | str,
    *,
    settings: Mapping[str, Any] | None = None,
    host: PluginHost | None = None,
) -> Exported:
    """Write `artefact` for one of TARGETS into a new folder.

    settings  of the generator, over those that the artefact records (local weights)
    Raises ConfigError for what this artefact cannot be exported to, ArtefactError for a folder that holds something.
    """
    folder = Path(folder)
    check_target(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtefactError(f"{folder} exists already. Choose another --out, or move it away.")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        job = _Job(artefact, settings or {}, host or load_plugins(), temporary)
        notes = _TARGETS[to](job)
        write_text(temporary / CARD, _card(artefact, to, temporary))
        if folder.is_dir():
            folder.rmdir()  # it is empty: what comes takes its place
    files = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
    return Exported(folder, files, notes)


def check_target(name: str) -> str:
    """The name, if it is one of TARGETS. Raises ConfigError."""
    if name not in TARGETS:
        raise ConfigError(f"--to is one of {', '.join(TARGETS)}, not {name!r}.")
    return name


def kohya_layout(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, header) in kohya's layout: lora_unet_*.lora_down / .lora_up and each layer's alpha."""
    tensors, rank, alpha = {}, int(config["r"]), float(config["lora_alpha"])
    for key, value in state.items():
        path, _, half = key.removesuffix(".weight").rpartition(".lora_")
        if half not in ("A", "B"):
            raise ConfigError(f"kohya's layout has no place for {key}: only plain LoRA can be exported to it.")
        name = kohya_name(path)
        tensors[f"{name}.lora_{'down' if half == 'A' else 'up'}.weight"] = value
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    header = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": f"{alpha:g}"}
    return tensors, {"format": "pt", **header}


def _diffusers(job: _Job) -> dict[str, Any]:
    _plain_lora(job.artefact, "diffusers")
    layouts = job.generator().layouts(job.artefact.tensors(), job.artefact.config)
    if not layouts:
        raise ConfigError(
            f"diffusers has no place for an adapter of {job.artefact.generator}: its pipelines load LoRAs of UNets and "
            "transformers."
        )
    for name, (tensors, header) in layouts.items():
        save_file(dict(tensors), job.folder / name, metadata=dict(header))
    return {}


def _kohya(job: _Job) -> dict[str, Any]:
    _write_kohya(job)
    return {}


def _write_kohya(job: _Job) -> str:
    artefact = job.artefact
    _plain_lora(artefact, "kohya's layout")
    if getattr(job.generator(), "network", "") != "unet":
        raise ConfigError(
            f"kohya's layout is for UNets, and {artefact.generator} is none. Try --to onnx, or its own folder."
        )
    tensors, header = kohya_layout(artefact.tensors(), artefact.config)
    licences = "; ".join(f"{what}: {licence}" for what, licence in artefact.record.get("licences", {}).items())
    about = {"modelspec.title": f"{artefact.intrinsic.name} from {artefact.generator}", "modelspec.license": licences}
    name = f"ilora_{artefact.generator}_{artefact.intrinsic.name}.safetensors"
    save_file(tensors, job.folder / name, metadata={**header, **about})
    return name


def _comfyui(job: _Job) -> dict[str, Any]:
    generator = job.generator()
    if not hasattr(generator, "comfyui"):
        raise ConfigError(f"ComfyUI's own nodes cannot draw the maps of {job.artefact.generator}. Try --to onnx.")
    for name, text in generator.comfyui(job.artefact.intrinsic, _write_kohya(job)).items():
        write_text(job.folder / name, text)
    return {}


def _onnx(job: _Job) -> dict[str, Any]:
    from ilora_core.interchange.onnx import export_onnx

    report = export_onnx(job.predictor(), job.folder / f"{job.artefact.intrinsic.name}.onnx")
    return {"opset": report.opset, "max_abs_error": report.max_abs_error, "size_mb": report.size_mb}


def _merged(job: _Job) -> dict[str, Any]:
    from ilora_core.interchange.merging import merge_active

    if not hasattr(job.generator(), "save_pipeline"):
        raise ConfigError(
            f"{job.artefact.generator} is no diffusers pipeline, so there is none to merge into. Try --to onnx."
        )
    generator = job.predictor().generator
    merge_active(generator.net)
    generator.save_pipeline(job.folder)
    return {}


def _plain_lora(artefact: Artefact, where: str) -> None:
    if artefact.record.get("adapter", "lora") != "lora" or artefact.config.get("peft_type", "LORA") != "LORA":
        raise ConfigError(
            f"{artefact.folder} is a {artefact.record.get('adapter')}, and {where} holds LoRAs. Try --to merged or --to onnx."
        )


_TARGETS: dict[str, Callable[[_Job], dict[str, Any]]] = {
    "diffusers": _diffusers,
    "kohya": _kohya,
    "comfyui": _comfyui,
    "onnx": _onnx,
    "merged": _merged,
}
TARGETS = tuple(_TARGETS)

_USE = {
    "diffusers": "Load it with `pipe.load_lora_weights(FOLDER)`.",
    "kohya": "One LoRA file for ComfyUI, A1111-like pages and diffusers; its scale is alpha / rank = {scale:g}.",
    "comfyui": (
        "Put the .safetensors file into ComfyUI's models/loras and open workflow.json (or queue workflow_api.json). "
        "It uses ComfyUI's own nodes alone."
    ),
    "onnx": "One network: input `picture` (B,3,H,W), RGB in [0,1]; output the map.",
    "merged": "A diffusers pipeline: load it with `DiffusionPipeline.from_pretrained(FOLDER)`; no adapter is needed.",
}


def _card(artefact: Artefact, to: str, folder: Path) -> str:
    """The artefact's model card, with how this export is used in place of how an artefact is."""
    config, own = artefact.config, artefact.folder
    scale = float(config.get("lora_alpha", 1)) / max(float(config.get("r", 1)), 1)
    use = "\n\n".join([_USE[to].format(scale=scale), *([] if to == "onnx" else [_one_step(artefact)])])
    if (own / PREVIEW).is_file():
        shutil.copyfile(own / PREVIEW, folder / PREVIEW)
    return folder_card(own, artefact.record, config, use=use)


def _one_step(artefact: Artefact) -> str:
    timestep = artefact.record.get("imported", {}).get("timestep", artefact.generator_settings.get("timestep"))
    at = "the last timestep" if timestep in (None, -1) else f"timestep {timestep}"
    return (
        f"A map is not drawn as a picture is: the picture's clean latent goes into the network once, at {at}, with the prompt "
        f'"{artefact.intrinsic.prompt}", and the raw output is the latent of the map.'
    )
