"""A plugin as an installed package would be, for sweeps: a generator with an encoder, a source of pictures with maps, a labeler.

A fit of eight steps takes a fraction of a second. `$TOY_LOG` names a file to which every loss adds a line.
"""

from __future__ import annotations

from pathlib import Path

MODULE = '''
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ilora_core.adapters import bare
from ilora_core.cards import Card
from ilora_core.errors import CannotEncode
from ilora_core.hookspecs import hookimpl
from ilora_core.intrinsics import DEPTH, NORMALS, unit_vectors
from ilora_core.losses import picture_loss
from ilora_core.noise import mix_seeds, noise_like
from ilora_core.protocols import Batch

SIDE, SPLITS = 8, {"train": 0, "test": 1000}


class Toy:
    """Pictures are their own codes; the network turns them into other pictures."""

    targets, resolution, stride = ("0", "2"), (SIDE, SIDE), 1

    def __init__(self, *, width: int = 6, random_net: bool = False, trap: str = "", timestep: int | None = None):
        if trap and Path(trap).exists():
            raise RuntimeError(f"fell into {trap}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1 if random_net else 0)
            self.net = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 3, 1))
        self.net.eval().requires_grad_(False)
        self.codec = nn.Linear(2, 2)

    def sample(self, n, *, seed):
        return {"x": noise_like(torch.empty(n, 3, SIDE, SIDE), [mix_seeds(seed, i) for i in range(n)]).sigmoid()}

    def encode(self, pictures):
        return {"x": pictures}

    def picture(self, codes):
        return codes["x"]

    @torch.no_grad()
    def render(self, codes, intrinsic):
        return self.net(codes["x"]) / 4 + 0.5

    def prepare(self, codes, intrinsic, target, valid):
        return {"target": target * 2 - 1, "valid": valid}

    def loss(self, codes, intrinsic):
        if "TOY_LOG" in os.environ:
            with open(os.environ["TOY_LOG"], "a") as log:
                log.write("loss\\n")
        return picture_loss(self.net(codes["x"]) / 2, codes["target"], codes["valid"], intrinsic.loss)

    def to(self, device):
        return self

    def park(self):
        pass

    def layouts(self, state, config):
        return {}


class Seer(Toy):
    """A toy that reads prompts, by their length, and among whose features is the map itself, in other colours."""

    def features(self, codes, intrinsic):
        value, valid = maps_of(codes["x"])[intrinsic.name]
        target = intrinsic.to_picture(value, valid)
        return torch.cat([target.flip(1) * 3 - 1, codes["x"].flip(3)], 1)

    def target_picture(self, target):
        return (target / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def render(self, codes, intrinsic):
        return (super().render(codes, intrinsic) / len(intrinsic.prompt)).clamp(0, 1)


class Blind(Toy):
    """A toy without an encoder."""

    def encode(self, pictures):
        raise CannotEncode("it only dreams.")


def maps_of(pictures):
    """Normals that lean with the colours, and depth that falls with the brightness."""
    valid = torch.ones_like(pictures[:, :1], dtype=torch.bool)
    normals = unit_vectors(pictures - torch.tensor([0.5, 0.5, 1.5]).view(1, 3, 1, 1))
    return {"normals": (normals, valid), "depth": (3 - pictures.mean(1, keepdim=True), valid)}


class Pictures:
    intrinsics = (NORMALS, DEPTH)

    def __init__(self, *, split: str = "train", n: int = 12):
        self.seeds = range(SPLITS[split], SPLITS[split] + n)
        self.keys = tuple(f"toy-{seed}" for seed in self.seeds)

    def __len__(self):
        return len(self.keys)

    def __iter__(self):
        for key, seed in zip(self.keys, self.seeds):
            coarse = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
            pictures = F.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
            yield Batch((key,), pictures, maps_of(pictures))


class Judge:
    intrinsics, version, weights_hash = (NORMALS, DEPTH), "1", "none"

    def __init__(self, *, tilt: float = 0.0):
        self.tilt = tilt

    def label(self, pictures):
        return maps_of(pictures + self.tilt)


@hookimpl
def ilora_generators():
    yield Card("toy", "A toy.", "CC0-1.0", "sweep_toys:Toy", "sweep_toys:Toy")
    yield Card("blind", "Dreams.", "CC0-1.0", "sweep_toys:Blind", "sweep_toys:Blind")
    yield Card("seer", "Sees maps.", "CC0-1.0", "sweep_toys:Seer", "sweep_toys:Seer")


@hookimpl
def ilora_sources():
    yield Card("toys", "Toys.", "CC0-1.0", "sweep_toys:Pictures", "sweep_toys:Pictures", ("normals", "depth"))


@hookimpl
def ilora_labelers():
    yield Card("judge", "Judges.", "CC0-1.0", "sweep_toys:Judge", "sweep_toys:Judge", ("normals", "depth"))
    yield Card("other-judge", "Too.", "CC0-1.0", "sweep_toys:Judge", "sweep_toys:Judge", ("normals", "depth"), {"tilt": 0.1})

'''


def install(folder: Path) -> Path:
    """Write the module and what an installer would leave beside it; the folder belongs on sys.path."""
    about = folder / "sweep_toys-1.dist-info"
    about.mkdir(parents=True)
    (folder / "sweep_toys.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sweep-toys\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ilora]\nsweep-toys = sweep_toys\n")
    return folder
