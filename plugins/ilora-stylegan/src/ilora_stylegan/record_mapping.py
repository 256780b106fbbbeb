"""The mapping network and the fully connected layers of NVIDIA's pickles."""

from __future__ import annotations

from ilora_stylegan.configs import MappingConfig
from ilora_stylegan.folding import MAPPING_LR
from ilora_stylegan.pickle_nodes import Broken
from ilora_stylegan.record_modules import Module

__all__ = ["check_affine", "mapping_lr", "read_mapping"]


def read_mapping(mapping: Module, num_ws: int) -> MappingConfig:
    """The mapping's dimensions, and how it takes a class."""
    c_dim = mapping.count("c_dim")
    layers = _fully_connected(mapping)
    for layer in layers:
        layer.expect("activation", "lrelu")
    found = {
        "z_dim": mapping.count("z_dim"),
        "c_dim": c_dim,
        "w_dim": mapping.count("w_dim"),
        "num_ws": num_ws,
        "widths": tuple(layer.weight(2)[0] for layer in layers),
    }
    if "embed" not in mapping:
        if c_dim:
            raise Broken(f"{mapping.path} takes {c_dim} classes and has no embedding for them")
        return MappingConfig(**found)
    embed = mapping["embed"]
    if embed.shape("bias"):
        embed.expect("activation", "linear")
        _plain(embed)
        return MappingConfig(**found, embed="linear", embed_dim=embed.weight(2)[0])
    rows, width = embed.weight(2)
    if c_dim:
        mapping["embed_proj"].expect("activation", "lrelu")
        _plain(mapping["embed_proj"])
    return MappingConfig(
        **found,
        embed="table",
        embed_dim=mapping["embed_proj"].weight(2)[0] if c_dim else 0,
        table=(rows, width),
    )


def check_affine(layer: Module) -> None:
    """Raises Broken unless the layer's affine part has the gains that folding takes for granted."""
    layer["affine"].expect("activation", "linear")
    _plain(layer["affine"])


def _plain(layer: Module) -> None:
    if abs((layer.multiplier() or 1.0) - 1) > 1e-5:
        raise Broken(f"{layer.path} has a learning-rate multiplier")


def _fully_connected(mapping: Module) -> list[Module]:
    layers = []
    while f"fc{len(layers)}" in mapping:
        layers.append(mapping[f"fc{len(layers)}"])
    if not layers:
        raise Broken(f"{mapping.path} has no layers")
    return layers


def mapping_lr(mapping: Module) -> float:
    """The learning-rate multiplier of fc0, fc1, …: from their gains, or the usual 0.01."""
    found = {round(layer.multiplier() or MAPPING_LR, 8) for layer in _fully_connected(mapping)}
    if len(found) > 1:
        raise Broken(f"{mapping.path}: its layers have different learning-rate multipliers")
    return found.pop()
