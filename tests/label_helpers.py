"""A plugin as an installed package would be, with two labelers and a GAN of toys, which note when they move and work."""

from __future__ import annotations

from pathlib import Path

SIDE = 8
MODULE = '''
import math
import torch
from torch import nn
from ilora_core.cards import Card
from ilora_core.errors import CannotEncode
from ilora_core.hookspecs import hookimpl
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.losses import picture_loss
from ilora_core.noise import mix_seeds, noise_like

LOG = []


class Tilt:
    """Normals that lean to the right by `degrees` times the brightness; depth of `scale` metres and more."""

    intrinsics = (NORMALS, DEPTH)
    version = "1"
    provenance = {"origin": "a toy"}

    def __init__(self, *, who, degrees=30.0, scale=1.0):
        self.who, self.degrees, self.scale, self.weights_hash = who, degrees, scale, "sha256:" + who * 12

    def to(self, device):
        LOG.append((self.who, str(device)))
        return self

    def label(self, pictures):
        LOG.append((self.who, f"labels {len(pictures)}"))
        if pictures.is_meta:
            pictures = torch.zeros(pictures.shape)
        brightness = pictures.mean(1, keepdim=True)
        angle = brightness * math.radians(self.degrees)
        normals = torch.cat([angle.sin(), torch.zeros_like(angle), -angle.cos()], 1)
        everywhere = torch.ones_like(brightness, dtype=torch.bool)
        return {"normals": (normals, everywhere), "depth": (self.scale * (1 + brightness), everywhere)}


class Gan:
    targets, resolution, stride, takes_weights = ("0",), (8, 8), 8, True

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.ConvTranspose2d(4, 3, 8), nn.Tanh()).eval().requires_grad_(False)

    def sample(self, n, *, seed):
        LOG.append(("gan", f"samples {n}"))
        return {"z": noise_like(torch.empty(n, 4, 1, 1), [mix_seeds(seed, i) for i in range(n)])}

    def encode(self, pictures):
        raise CannotEncode("a GAN has no encoder.")

    def picture(self, codes):
        LOG.append(("gan", "draws"))
        from ilora_core.adapters import bare  # imports peft, which labelling does without

        with bare(self.net):
            return self.render(codes, None)

    @torch.no_grad()
    def render(self, codes, intrinsic):
        return self.net(codes["z"]) / 2 + 0.5

    def prepare(self, codes, intrinsic, target, valid):
        return {"target": target * 2 - 1, "valid": valid}

    def loss(self, codes, intrinsic):
        return picture_loss(self.net(codes["z"]), codes["target"], codes["valid"], intrinsic.loss)

    def to(self, device):
        LOG.append(("gan", str(device)))
        return self

    def park(self):
        LOG.append(("gan", "parks"))

    def layouts(self, state, config):
        return {}


def _convert(source, out):
    out.mkdir()
    (out / "weights.txt").write_text(source.read_text().upper())
    return {"letters": len(source.read_text())}


def _labeler(name, who, **more):
    given, options = ("normals", "depth"), {"who": who}
    return Card(name, "Leans.", f"licence of {who}", "toys_plugin:Tilt", "toys_plugin:Tilt", given, options, **more)


@hookimpl
def ilora_labelers():
    yield _labeler("lean-a", "a", convert="toys_plugin:_convert")
    yield _labeler("lean-b", "b")


@hookimpl
def ilora_generators():
    yield Card("toy-gan", "Noise.", "CC0-1.0", "toys_plugin:Gan", "toys_plugin:Gan")

'''


def install(folder: Path) -> Path:
    """Write the module and what an installer would leave beside it; the folder belongs on sys.path."""
    about = folder / "toys-1.dist-info"
    about.mkdir(parents=True)
    (folder / "toys_plugin.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ilora]\ntoys = toys_plugin\n")
    return folder
