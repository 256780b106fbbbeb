"""How the cards' generators are made: from a checkpoint, tiny at random, or weightless on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.errors import ConfigError, WeightsError
from ilora_stylegan.configs import Config, StyleGAN2Config
from ilora_stylegan.design import stylegan3_config, superres_config, xl_ffhq, xl_imagenet
from ilora_stylegan.generator import StyleGAN
from ilora_stylegan.projection import Projection
from ilora_stylegan.stylegan2 import stylegan2_config
from ilora_stylegan.weights import find_weights

__all__ = ["ARCHITECTURES", "build", "convert", "skeleton", "stylegan", "tiny", "tiny3", "tiny_xl"]

ARCHITECTURES = {
    "stylegan2-256": lambda: stylegan2_config(resolution=256, channel_base=16384),
    "stylegan2-1024": lambda: stylegan2_config(resolution=1024, channel_base=32768),
    "stylegan3-t-256": lambda: stylegan3_config(resolution=256, channel_base=16384),
    "stylegan3-r-256": lambda: stylegan3_config(
        resolution=256, channel_base=32768, channel_max=1024, kernel=1, radial=True
    ),
    "styleganxl-ffhq-256": xl_ffhq,
    "styleganxl-imagenet-256": xl_imagenet,
}


def stylegan(
    *,
    weights: str,
    family: str = "",
    architecture: str = "stylegan2-256",
    psi: float = 1.0,
    cutoff: int | None = None,
    noise: str = "const",
    label: int | None = None,
    projection: int = 0,
    projection_lr: float = 0.05,
    perceptual: bool = False,
    random_weights: bool = False,
    seed: int = 0,
) -> StyleGAN:
    """A GAN from a checkpoint; see `StyleGAN` for psi, cutoff, noise and label.

    weights        a .pkl, a .pt, a folder that `ilora convert` wrote, or a name in registry.toml that has an address
    family         "stylegan2" or "stylegan3" (which StyleGAN-XL belongs to): refuse a checkpoint of the other; "" = either
    architecture   what `skeleton` builds, for counts without weights; a checkpoint brings its own
    projection     steps of Adam to invert each real picture with; 0 = do not
    random_weights the control: the checkpoint's mapping, so that codes are the same, and a synthesis of new weights by `seed`
    """
    from ilora_stylegan.checkpoints import read_checkpoint

    inversion = _projection(projection, projection_lr, perceptual)
    path, provenance = find_weights(weights)
    checkpoint = read_checkpoint(path)
    if family and checkpoint.config.family != family:
        raise WeightsError(
            f"{path} holds a {checkpoint.config.family} network, and this card is for {family}. "
            f"Use --generator {checkpoint.config.family}."
        )
    net = build(checkpoint.config, seed=seed if random_weights else None)
    kept = {
        k: v
        for k, v in checkpoint.state.items()
        if not random_weights or k.startswith("mapping.") or k.endswith("_filter")
    }
    net.load_state_dict(kept, strict=not random_weights)
    if checkpoint.about.get("needs_w_avg"):
        _estimate_mean(net)
    about = {**provenance, **checkpoint.about, **({"random_weights": seed} if random_weights else {})}
    return StyleGAN(net, psi=psi, cutoff=cutoff, noise=noise, label=label, projection=inversion, provenance=about)


def build(config: Config, *, seed: int | None = None) -> nn.Module:
    """The network of a configuration; with a seed, its weights as before any training."""
    if isinstance(config, StyleGAN2Config):
        from ilora_stylegan.stylegan2 import StyleGAN2 as Network
        from ilora_stylegan.stylegan2 import initialise
    else:
        from ilora_stylegan.stylegan3 import StyleGAN3 as Network
        from ilora_stylegan.stylegan3 import initialise
    net: Any = Network(config)  # pyright: ignore[reportArgumentType]
    if seed is not None:
        initialise(net, seed)
    return net


def skeleton(*, architecture: str = "stylegan2-256", **_: Any) -> StyleGAN:
    """The full-size network on the meta device."""
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"generator.architecture is one of {', '.join(ARCHITECTURES)}, not {architecture!r}.")
    with torch.device("meta"):
        return StyleGAN(build(ARCHITECTURES[architecture]()))


def tiny() -> StyleGAN:
    """A StyleGAN2 of 16², random weights, CPU, under a second."""
    config = stylegan2_config(resolution=16, channel_base=128, channel_max=16, mapping_layers=2, z_dim=8, w_dim=16)
    return StyleGAN(build(config, seed=0), provenance={"weights": "tiny, random"})


def tiny3() -> StyleGAN:
    """A StyleGAN3 of 16²."""
    config = stylegan3_config(resolution=16, channel_base=128, channel_max=8, num_layers=4, z_dim=8, w_dim=16)
    return StyleGAN(build(config, seed=0), provenance={"weights": "tiny, random"})


def tiny_xl() -> StyleGAN:
    """A class-conditional StyleGAN-XL of 32²: a stem of 16² and one super-resolution head."""
    stem = stylegan3_config(
        resolution=16, channel_base=256, channel_max=8, num_layers=6, z_dim=8, w_dim=16, c_dim=3, embed="table"
    )
    config = superres_config(stem, resolution=32, head_layers=4)
    return StyleGAN(build(config, seed=0), provenance={"weights": "tiny, random"})


def convert(source: Path, out: Path) -> dict[str, Any]:
    """Read any checkpoint once and write config.json + model.safetensors to the folder `out`; facts to print."""
    from ilora_stylegan.checkpoints import read_checkpoint, save_checkpoint

    checkpoint = read_checkpoint(source)
    net = build(checkpoint.config)
    net.load_state_dict(checkpoint.state)  # what is written must load
    if checkpoint.about.pop("needs_w_avg", False):
        checkpoint.state["mapping.w_avg"] = _estimate_mean(net)
    save_checkpoint(checkpoint, out)
    counted = sum(parameter.numel() for parameter in net.parameters())
    return {"family": checkpoint.config.family, "resolution": checkpoint.config.resolution, "parameters": counted}


@torch.no_grad()
def _estimate_mean(net: Any) -> Tensor:
    """Set the mean w that a checkpoint lacks, and return it: over 10,000 codes of a fixed seed, as rosinality's scripts do."""
    codes = torch.randn(10_000, net.z_dim, generator=torch.Generator().manual_seed(0))
    mean = torch.stack([net.mapping(part)[:, 0].sum(0) for part in codes.split(1000)]).sum(0) / len(codes)
    net.mapping.w_avg.copy_(mean)
    return mean


def _projection(steps: int, lr: float, perceptual: bool) -> Projection | None:
    return Projection(steps=steps, lr=lr, perceptual=perceptual) if steps else None
