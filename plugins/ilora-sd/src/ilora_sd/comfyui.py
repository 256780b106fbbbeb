"""A one-step adapter as a ComfyUI workflow of stock nodes, in the editor's format and in the server's.

    picture -> scale -> VAE encode -> one Euler step from σ_t to 0 without noise -> VAE decode -> map

What makes the step the generator's own is ComfyUI's sampling type "img_to_img" (`comfy/model_sampling.py`): the latent goes
into the UNet unscaled, and its raw output is the result, whether the checkpoint predicts noise or velocity. The step is then
x + (x − U)/σ · (0 − σ) = U, and σ only chooses the timestep: the one whose σ in ComfyUI's own table is nearest.

Maps: normals as they are drawn, and inverted; maps of one channel as a grey picture, the mean of the three channels or (as
KJNodes' retired node had it) their maximum, max(a, b) = a + relu(b − a); others as they are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_sd.architectures import SCHEDULER
from ilora_sd.comfyui_formats import Node, Workflow
from ilora_sd.schedule import alphas

__all__ = ["DEPTH_CHANNELS", "sigma_of", "workflow"]

DEPTH_CHANNELS = ("mean", "max")
_THIRD = 0x555555  # grey of 85/255 in each channel


def workflow(
    *,
    intrinsic: Intrinsic,
    lora: str,
    checkpoint: str,
    prompt: str,
    timestep: int,
    sigma: float | None,
    resolution: int,
    depth_channels: str = "mean",
    licence: str = "",
) -> Workflow:
    """The workflow of one adapter.

    lora, checkpoint  names of files in ComfyUI's models/loras and models/checkpoints
    timestep, sigma   at which the UNet is read, and its σ (`sigma_of`); None = the last one, ComfyUI's own first σ
    resolution        height that a picture is scaled to
    depth_channels    how the three channels of a depth map become one: "mean", as ilora has it, or "max"
    licence           of the checkpoint, for the note
    """
    if depth_channels not in DEPTH_CHANNELS:
        raise ConfigError(f"depth_channels is {' or '.join(DEPTH_CHANNELS)}, not {depth_channels!r}.")
    graph = _Graph()
    picture = graph.add("LoadImage", "Picture", image="example.png")
    weights = graph.add("CheckpointLoaderSimple", "Stable Diffusion", ckpt_name=checkpoint)
    scaled = graph.add(
        "ImageScale", "To the model's size", image=(picture, 0), upscale_method="area", width=0, height=resolution,
        crop="disabled",
    )  # fmt: skip
    encoded = graph.add("VAEEncode", "Encode", pixels=(scaled, 0), vae=(weights, 2))
    words = graph.add("CLIPTextEncode", "Prompt of the adapter", text=_escaped(prompt), clip=(weights, 1))
    adapted = graph.add(
        "LoraLoaderModelOnly", f"ilora: {intrinsic.name}", model=(weights, 0), lora_name=lora, strength_model=1.0
    )
    raw = graph.add("ModelSamplingDiscrete", "Raw output", model=(adapted, 0), sampling="img_to_img", zsnr=False)
    map_latent = _one_step(graph, raw, words, encoded, timestep, sigma)
    drawn = graph.add("VAEDecode", "Decode", samples=(map_latent, 0), vae=(weights, 2))
    _finish(graph, drawn, intrinsic, depth_channels)
    return Workflow(graph.nodes, _note_text(intrinsic, lora, checkpoint, timestep, resolution, licence))


def sigma_of(scheduler: Mapping[str, Any], timestep: int) -> float | None:
    """σ_t = √((1 − a_t) / a_t); None for the last timestep. scheduler: a model's scheduler_config.json.

    Raises ConfigError for a noise schedule that is not Stable Diffusion's: ComfyUI finds timesteps in a table of that one.
    """
    table, known = alphas(scheduler), alphas(SCHEDULER)
    if table.shape != known.shape or not table.allclose(known):
        raise ConfigError(
            "ComfyUI's stock nodes know one noise schedule (1000 steps, scaled_linear, β from 0.00085 to 0.012), and this model "
            "has another: an adapter of it cannot be drawn there at the timestep it was trained at."
        )
    if timestep == len(table) - 1:
        return None
    alpha = float(table[timestep])
    return round(((1 - alpha) / alpha) ** 0.5, 6)


class _Graph:
    """Nodes in the order they are added, numbered from 1."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, kind: str, title: str, **inputs: Any) -> int:
        self.nodes.append(Node(len(self.nodes) + 1, kind, title, inputs))
        return len(self.nodes)


def _one_step(graph: _Graph, model: int, words: int, latent: int, timestep: int, sigma: float | None) -> int:
    """The sampler, whose first output is the map's latent."""
    noise = graph.add("DisableNoise", "No noise")
    guider = graph.add("BasicGuider", "Guider", model=(model, 0), conditioning=(words, 0))
    euler = graph.add("KSamplerSelect", "Sampler", sampler_name="euler")
    sigmas = graph.add("BasicScheduler", "One step", model=(model, 0), scheduler="simple", steps=1, denoise=1.0)
    if sigma is not None:
        sigmas = graph.add("SetFirstSigma", f"Timestep {timestep}", sigmas=(sigmas, 0), sigma=sigma)
    return graph.add(
        "SamplerCustomAdvanced", "One pass", noise=(noise, 0), guider=(guider, 0), sampler=(euler, 0), sigmas=(sigmas, 0),
        latent_image=(latent, 0),
    )  # fmt: skip


def _finish(graph: _Graph, drawn: int, intrinsic: Intrinsic, depth_channels: str) -> None:
    """From the decoded picture to files."""
    name = f"ilora-{intrinsic.name}"
    if intrinsic.encoding in ("relative_depth", "linear", "srgb") and intrinsic.channels == 1:
        largest = depth_channels == "max" and intrinsic.encoding == "relative_depth"
        mask = _largest(graph, drawn) if largest else _mean(graph, drawn)
        drawn = graph.add("MaskToImage", "Grey", mask=(mask, 0))
    if intrinsic.encoding == "unit_vector":
        turned = graph.add("ImageInvert", "x left, y up, z to the viewer", image=(drawn, 0))
        graph.add("SaveImage", "Inverted", images=(turned, 0), filename_prefix=f"{name}-inverted")
    graph.add("SaveImage", "As drawn", images=(drawn, 0), filename_prefix=name)


def _mean(graph: _Graph, drawn: int) -> int:
    """R/3 + G/3 + B/3. A blend factor of 1/3 would do with less, but its field in the editor holds two decimals."""
    third = graph.add("EmptyImage", "One third", width=64, height=64, batch_size=1, color=_THIRD)
    parts = graph.add(
        "ImageBlend", "Channels / 3", image1=(drawn, 0), image2=(third, 0), blend_factor=1.0, blend_mode="multiply"
    )
    red, green, blue = _channels(graph, parts)
    return _combined(graph, "R + G + B", _combined(graph, "R + G", red, green, "add"), blue, "add")


def _largest(graph: _Graph, drawn: int) -> int:
    """max(max(R, G), B): a + relu(b − a), MaskComposite cutting at 0."""
    largest, *others = _channels(graph, drawn)
    for other in others:
        above = _combined(graph, "What is above", other, largest, "subtract")
        largest = _combined(graph, "Maximum", largest, above, "add")
    return largest


def _channels(graph: _Graph, picture: int) -> tuple[int, int, int]:
    red, green, blue = (
        graph.add("ImageToMask", colour, image=(picture, 0), channel=colour) for colour in ("red", "green", "blue")
    )
    return red, green, blue


def _combined(graph: _Graph, title: str, destination: int, source: int, operation: str) -> int:
    return graph.add(
        "MaskComposite", title, destination=(destination, 0), source=(source, 0), x=0, y=0, operation=operation
    )


def _escaped(prompt: str) -> str:
    """Parentheses as letters: bare ones give what is inside another weight."""
    return prompt.replace("(", r"\(").replace(")", r"\)")


def _note_text(intrinsic: Intrinsic, lora: str, checkpoint: str, timestep: int, resolution: int, licence: str) -> str:
    lines = [
        f"{intrinsic.name}, drawn by an ilora adapter in one pass at timestep {timestep}.",
        f"Files: models/checkpoints/{checkpoint} and models/loras/{lora}. Choose yours in the two loaders.",
        f"Pictures are scaled to a height of {resolution}; for an upright one set width to {resolution} and height to 0. The "
        "encoder cuts both sides to multiples of 8.",
        *_map_notes(intrinsic),
        "ComfyUI saves 8 bits a channel; `ilora predict` writes floats.",
        f"Licences: checkpoint: {licence or 'its own, see where you got it'}; adapter: see the README.md beside it.",
    ]
    return "\n\n".join(lines)


def _map_notes(intrinsic: Intrinsic) -> list[str]:
    if intrinsic.encoding == "unit_vector":
        return [
            "As drawn: (n + 1) / 2 with x right, y down, z forward, so what faces the camera is dark in blue. Inverted: all "
            "three axes turned round. An OpenGL normal map has x right, y up, z to the viewer: invert green and blue alone."
        ]
    if intrinsic.encoding == "relative_depth":
        return ["Near is bright; scale and shift are those of the picture."]
    if intrinsic.encoding in ("srgb", "shading"):
        return ["The picture is sRGB-encoded; the map itself is linear."]
    return [f"0 … 1 in the picture is {intrinsic.low:g} … {intrinsic.high:g} {intrinsic.unit}".rstrip() + "."]
