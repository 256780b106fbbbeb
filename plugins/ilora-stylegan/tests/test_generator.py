"""The generator around the networks: codes, noise, truncation, classes, projection, and the command line on a checkpoint."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from ilora_core.errors import CannotEncode, ConfigError, WeightsError
from ilora_core.intrinsics import ALBEDO, NORMALS
from ilora_core.plan import count
from ilora_core.plugins import load_plugins
from ilora_stylegan.factories import stylegan, tiny, tiny3, tiny_xl
from ilora_stylegan.generator import StyleGAN, draw_z
from ilora_stylegan.projection import Projection, project

ORACLES = __file__.replace("test_generator.py", "oracles/")


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def test_seeds_are_the_published_ones():
    generator = stylegan(weights=f"{ORACLES}sg2_a.pkl")
    z = torch.from_numpy(np.random.RandomState(85).randn(1, 64)).float()
    assert torch.equal(draw_z([85], 64), z)
    assert torch.equal(generator.from_seeds([85])["w"], generator.net.mapping(z))
    assert torch.equal(generator.sample(86, seed=0)["w"][85:], generator.from_seeds([85])["w"])


def test_other_seeds_are_other_samples():
    generator = tiny()
    first, second = (generator.sample(3, seed=seed)["w"] for seed in (0, 1))
    assert not torch.isclose(first[:, None], second[None]).all((-1, -2)).any()


def test_truncation_pulls_towards_the_mean():
    whole, half, none = (stylegan(weights=f"{ORACLES}sg2_a.pkl", psi=psi).sample(4)["w"] for psi in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (whole + none) / 2)
    assert none.std(0).max() == 0


def test_classes_are_drawn_by_the_seed_or_given():
    codes = tiny_xl().sample(40, seed=3)
    drawn = [np.random.RandomState(3_000_000 + i).randint(0, 3) for i in range(40)]
    assert codes["label"].tolist() == drawn
    net = tiny_xl().net
    assert StyleGAN(net, label=2).sample(5)["label"].tolist() == [2] * 5
    with pytest.raises(ConfigError, match=r"0 … 2"):
        StyleGAN(net, label=3)
    with pytest.raises(ConfigError, match="no classes"):
        StyleGAN(tiny().net, label=0)


def test_noise_is_the_same_for_picture_and_map():
    generator = StyleGAN(tiny().net, noise="random")
    for block in generator.net.synthesis.modules():
        if hasattr(block, "noise_strength"):
            block.noise_strength.data.fill_(0.5)
    codes = generator.sample(2)
    assert torch.equal(generator.picture(codes), generator.render(codes, ALBEDO))
    assert not torch.equal(generator.picture(codes), StyleGAN(generator.net, noise="none").picture(codes))
    swapped = {name: value.flip(0) for name, value in codes.items()}
    torch.testing.assert_close(generator.picture(swapped).flip(0), generator.picture(codes))


def test_no_encoder_unless_projection_is_asked_for():
    with pytest.raises(CannotEncode, match=r"generator\.projection"):
        tiny().encode(torch.rand(1, 3, 16, 16))
    with pytest.raises(CannotEncode, match="16×16"):
        StyleGAN(tiny().net, projection=Projection(steps=1)).encode(torch.rand(1, 3, 32, 32))


def test_projection_finds_the_networks_own_picture():
    generator = StyleGAN(tiny().net, projection=Projection(steps=120, lr=0.1))
    picture = generator.picture(generator.from_seeds([5, 6]))
    with torch.inference_mode():  # as `predict` calls it
        found = generator.picture(generator.encode(picture))
    mean = generator.picture(
        {**generator.from_seeds([0]), "w": generator.net.mapping.w_avg.expand(1, generator.net.num_ws, -1)}
    )
    assert psnr(found, picture) > psnr(mean.expand(2, -1, -1, -1), picture) + 6
    alone = project(generator.net, picture[:1], Projection(steps=5))
    torch.testing.assert_close(alone, project(generator.net, picture, Projection(steps=5))[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"noise": "loud"}, "const, none, random"), ({"psi": 3.0}, "psi"), ({"weights": "no.pkl"}, "no checkpoint")],
)
def test_bad_settings(settings, words):
    with pytest.raises((ConfigError, WeightsError), match=words):
        stylegan(**{"weights": f"{ORACLES}sg2_a.pkl", **settings})


def test_a_card_refuses_the_other_family():
    with pytest.raises(WeightsError, match="stylegan3"):
        stylegan(weights=f"{ORACLES}sg3_t.pkl", family="stylegan2")


@pytest.mark.parametrize("case", ["sg2_a", "xl_super"])
def test_random_weights_keep_the_codes_and_change_the_picture(case):
    trained = stylegan(weights=f"{ORACLES}{case}.pkl")
    random, other = (stylegan(weights=f"{ORACLES}{case}.pkl", random_weights=True, seed=seed) for seed in (0, 1))
    assert torch.equal(random.sample(2)["w"], trained.sample(2)["w"])
    drawn = random.picture(random.sample(2))
    assert torch.isfinite(drawn).all()
    assert not torch.allclose(drawn, trained.picture(trained.sample(2)), atol=0.01)
    assert not torch.equal(drawn, other.picture(other.sample(2)))


def test_a_name_without_a_connection_says_where_to_get_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("ILORA_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"ffhq256\.pkl[\s\S]*generator\.weights=FILE"):
        load_plugins().make("generators", "styleganxl-ffhq")


@pytest.mark.parametrize(
    ("card", "parameters", "adapter"),
    [
        ("stylegan2-ffhq", 24_767_458, 141_312),
        ("stylegan2-bedroom", 24_767_458, 141_312),
        ("styleganxl-ffhq", 67_928_945, 194_744),
        ("styleganxl-imagenet", 166_267_046, 342_528),
    ],
)
def test_counts_without_weights(card, parameters, adapter):
    counted, about = count(load_plugins(), card, {})
    assert (counted["net"], about["parameters"]) == (parameters, adapter)


@pytest.mark.parametrize("made", [tiny, tiny3, tiny_xl])
def test_loss_is_the_papers(made):
    generator = made()
    codes = generator.sample(2)
    target, valid = torch.rand(2, 3, *generator.resolution), torch.ones(2, 1, *generator.resolution, dtype=torch.bool)
    raw = generator.net(codes["w"], noise="const")
    wanted = target * 2 - 1
    cosine = 1 - torch.nn.functional.cosine_similarity(raw, wanted, dim=1)
    expected = cosine.mean((1, 2)) + (raw - wanted).abs().mean((1, 2, 3))
    prepared = {**codes, **generator.prepare(codes, NORMALS, target, valid)}
    torch.testing.assert_close(generator.loss(prepared, NORMALS), expected)
    expected = (raw - wanted).square().mean((1, 2, 3))
    torch.testing.assert_close(generator.loss(prepared, ALBEDO), expected)


def ilora(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ilora_cli.main", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def test_convert_then_load(tmp_path):
    done = ilora(
        "convert", f"{ORACLES}sg2_a_rosinality.pt", str(tmp_path / "net"), "--generator", "stylegan2", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resolution"] == 32
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["config.json", "model.safetensors"]
    one, other = stylegan(weights=str(tmp_path / "net")), stylegan(weights=f"{ORACLES}sg2_a_rosinality.pt")
    codes = one.sample(2)
    assert torch.equal(one.picture(codes), other.picture(codes))
    again = ilora("convert", f"{ORACLES}sg2_a.pkl", str(tmp_path / "net"), "--generator", "stylegan2")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_convert_refuses_before_anything_is_written(tmp_path):
    (tmp_path / "broken.pkl").write_bytes(b"\x80\x04no pickle at all")
    for arguments, words in (
        ((str(tmp_path / "broken.pkl"), str(tmp_path / "out"), "-g", "stylegan2"), "broken.pkl"),
        ((str(tmp_path / "none.pkl"), str(tmp_path / "out"), "-g", "stylegan2"), "none.pkl"),
        ((str(tmp_path / "broken.pkl"), str(tmp_path / "out")), "--generator"),
        ((str(tmp_path / "broken.pkl"), str(tmp_path / "out"), "-g", "sd15"), "nothing to convert"),
    ):
        done = ilora("convert", *arguments)
        assert done.returncode in (1, 2), done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [tiny, tiny3], ids=["stylegan2", "stylegan3"])
def test_features_are_the_layers_at_the_pictures_size(make):
    generator = make()
    side, codes = generator.resolution[0], generator.sample(2, seed=0)
    features = generator.features(codes, NORMALS)

    assert features.shape[0] == 2
    assert features.shape[1] > 16
    assert features.shape[2:] == (side, side)
    assert features.isfinite().all()
    torch.testing.assert_close(features[1:], generator.features({k: v[1:] for k, v in codes.items()}, NORMALS))
    assert not any(module._forward_hooks for module in generator.net.modules())
    torch.testing.assert_close(generator.target_picture(generator._draw(codes)), generator.picture(codes))
