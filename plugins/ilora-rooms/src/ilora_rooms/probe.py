"""The closed-form linear probe: what of a map can be read off a frozen UNet's features by one matrix.

    W = argmin ‖F W − z_map‖² + λ‖W‖²,   F the up-block features of the clean latent at timestep t, at 16×16

It needs no tuning and seconds, so it is the cleanest test of "did pre-training put the intrinsic there".

    python -m ilora_rooms.probe FOLDER [FOLDER ...]     # 250 labels, 100 test rooms; one line of JSON per export
"""

# diffusers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from .export import load_folder
from .model import Generator
from .render import Rooms, render
from .splits import seeds

__all__ = ["features", "normals_probe"]


@torch.no_grad()
def features(generator: Generator, pictures: Tensor, timestep: int, prompt: str = "surface normal") -> Tensor:
    """All up-block outputs, upsampled to the latent's grid; (B, K, h, w)."""
    net, side = generator.unet, generator.unet.config.sample_size
    caught: list[Tensor] = []
    sites = [a for block in net.up_blocks for a in (getattr(block, "attentions", None) or block.resnets)]
    hooks = [
        s.register_forward_hook(
            lambda m, i, o: caught.append(o[0] if isinstance(o, tuple) else getattr(o, "sample", o))
        )
        for s in sites
    ]
    blocks = []
    context = generator.text(generator.tokens([prompt])).last_hidden_state
    for chunk in pictures.split(50):
        caught.clear()
        net(generator.latents(chunk), timestep, context.expand(len(chunk), -1, -1))
        blocks.append(torch.cat([interpolate(f, size=(side, side)) for f in caught], 1))
    for hook in hooks:
        hook.remove()
    return torch.cat(blocks)


def normals_probe(generator: Generator, train: Rooms, test: Rooms, timestep: int, ridge: float = 1e-2) -> float:
    """Mean angular error in degrees over the valid pixels of `test`, after decoding."""
    f, g = features(generator, train.picture, timestep), features(generator, test.picture, timestep)
    mean, std = f.mean((0, 2, 3), keepdim=True), f.std((0, 2, 3), keepdim=True) + 1e-6

    def rows(x: Tensor) -> Tensor:
        x = ((x - mean) / std).movedim(1, -1).flatten(0, -2).double()
        return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)

    a, b = rows(f), generator.latents((train.normals + 1) / 2).movedim(1, -1).flatten(0, -2).double()
    gram = a.T @ a / len(a) + ridge * torch.eye(a.shape[1], dtype=a.dtype)
    weights = torch.linalg.solve(gram, a.T @ b / len(a))
    side = g.shape[-1]
    z = (rows(g) @ weights).float().reshape(len(g), side, side, -1).movedim(-1, 1)
    guess = normalize(generator.pictures(z) * 2 - 1, dim=1)
    angle = torch.rad2deg(torch.acos((guess * test.normals).sum(1).clamp(-1, 1)))
    return float(angle[test.valid[:, 0]].mean())


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    train, test = render(seeds("labels", 250)), render(seeds("test", 100))
    for folder in folders:
        generator = load_folder(Path(folder))
        row = {f"t{t}": round(normals_probe(generator, train, test, t), 2) for t in (999, 300)}
        print(json.dumps({"folder": folder, **row}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
