"""The multi-step model: its widened convolution, its training target, its draws and their spread."""

import logging
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

from ilora_core.adapters import LoraAdapter
from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig, RuntimeConfig
from ilora_core.errors import WeightsError
from ilora_core.fit import fit
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.noise import mix_seeds, noise_like
from ilora_core.predict import Predictor
from ilora_core.testing.exercise import attach_lora, disturb
from ilora_core.testing.scenes import make_scenes
from ilora_sd.augmented import Augmented
from ilora_sd.factories import augmented, augmented_skeleton, tiny, tiny_augmented, tiny_blind, tiny_components
from ilora_sd.sampler import Sampling
from ilora_sd.widening import read_picture_channels, widen

UNET = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def picture_weights():
    return torch.randn(16, 4, 3, 3, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def pix2pix(tmp_path_factory, picture_weights) -> Path:
    """A diffusers folder of a UNet with eight input channels."""
    folder = tmp_path_factory.mktemp("pix2pix")
    widen(tiny_components(seed=1), picture_weights).unet.save_pretrained(folder / "unet")
    return folder


@pytest.fixture
def scenes():
    return make_scenes(64, 64)


def made(**sampling) -> Augmented:
    """`tiny_augmented` with other sampling settings."""
    generator = tiny_augmented()
    generator.sampling = Sampling(**{"steps": 3, **sampling})
    return generator


def recorded(generator):
    """Every call of the network: (input, timesteps)."""
    calls, real = [], generator._call

    def call(latent, timesteps, conditions):
        calls.append((latent.detach().clone(), timesteps))
        return real(latent, timesteps, conditions)

    generator._call = call
    return calls


def test_the_widened_convolution_is_the_sum_of_both(picture_weights):
    parts = tiny_components()
    base = parts.unet.conv_in
    made = widen(parts, picture_weights, "here")
    x, c = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.conv2d(c, picture_weights, padding=1)
    torch.testing.assert_close(made.unet.conv_in(torch.cat([x, c], 1)), base(x) + picture)
    assert torch.equal(made.unet.conv_in.weight[:, :4], base.weight)
    assert torch.equal(made.unet.conv_in.weight[:, 4:], picture_weights)
    assert torch.equal(made.unet.conv_in.bias, base.bias)
    assert made.provenance["picture_channels"] == "here"


def test_the_saved_configuration_says_eight_channels(pix2pix):
    loaded = UNet2DConditionModel.from_pretrained(pix2pix / "unet")
    assert loaded.config.in_channels == loaded.conv_in.in_channels == 8


def test_picture_channels_are_read_from_anything(pix2pix, picture_weights, tmp_path):
    found, told = read_picture_channels(str(pix2pix))
    assert torch.equal(found, picture_weights)
    assert "local folder" in told
    first = {"model.diffusion_model.input_blocks.0.0.weight": torch.cat([found, 2 * found], 1).half()}
    save_file(first, tmp_path / "p.safetensors")
    torch.save({"state_dict": first}, tmp_path / "p.ckpt")
    for name in ("p.safetensors", "p.ckpt"):
        read = read_picture_channels(str(tmp_path / name))[0]
        assert torch.equal(read, (2 * found).half().float())


def test_other_files_are_refused(sd_folder, tmp_path, picture_weights):
    with pytest.raises(WeightsError, match="takes 4 input channels: no InstructPix2Pix"):
        read_picture_channels(str(sd_folder))
    save_file({"x": torch.ones(1)}, tmp_path / "p.safetensors")
    with pytest.raises(WeightsError, match="no first convolution"):
        read_picture_channels(str(tmp_path / "p.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(WeightsError, match=r"cut\.safetensors cannot be read"):
        read_picture_channels(str(tmp_path / "cut.safetensors"))
    with pytest.raises(WeightsError, match="no file"):
        read_picture_channels(str(tmp_path / "none.safetensors"))
    (tmp_path / "unet").mkdir()
    with pytest.raises(WeightsError, match="has no diffusion_pytorch_model"):
        read_picture_channels(str(tmp_path))
    with pytest.raises(WeightsError, match="same family"):
        widen(tiny_components(), picture_weights[:8], "there")


def test_the_factory_says_where_the_picture_channels_are_from(sd_folder, pix2pix, picture_weights, caplog):
    with caplog.at_level(logging.WARNING, logger="ilora"):
        blind = augmented(weights=str(sd_folder))
    assert blind.provenance["picture_channels"] == "zeros"
    assert "sees no picture" in caplog.text
    assert not blind.unet.conv_in.weight[:, 4:].any()
    seeing = augmented(weights=str(sd_folder), image_weights=str(pix2pix))
    assert seeing.provenance["picture_channels"].startswith(str(pix2pix))
    assert torch.equal(seeing.unet.conv_in.weight[:, 4:], picture_weights)
    assert not seeing.unet.conv_in.weight.requires_grad
    assert seeing.resolution == (512, 512)


def test_the_random_control_draws_the_first_convolution_too(sd_folder):
    first, other = (augmented(weights=str(sd_folder), random_unet=True, seed=s) for s in (1, 2))
    weights = [g.unet.conv_in.weight for g in (first, other)]
    assert weights[0].shape == (16, 8, 3, 3)
    assert weights[0][:, 4:].any()
    assert not torch.equal(*weights)
    assert first.provenance["random_unet"] == 1


def test_own_samples_are_those_of_the_base():
    torch.testing.assert_close(
        tiny_augmented().sample(2, seed=3)["latent"], tiny().sample(2, seed=3)["latent"], atol=1e-4, rtol=0
    )


def test_the_loss_is_the_velocitys(scenes):
    generator = made()
    disturb(attach_lora(generator))
    codes = dict(generator.encode(scenes.pictures))
    codes |= generator.prepare(codes, NORMALS, NORMALS.to_picture(scenes.maps["normals"]), scenes.valid)
    seeds = [3, 2**62 + 1]
    loss = generator.loss({**codes, "seed": torch.tensor(seeds)}, NORMALS)
    for row, seed in enumerate(seeds):
        t = mix_seeds(seed, 0x71) % 1000
        a = torch.tensor(generator.alphas[t])
        one = {name: value[row : row + 1] for name, value in codes.items() if len(value) == 2}
        clean = one["target"] + one["target_std"] * noise_like(one["target"], [seed])
        noise = noise_like(clean, [mix_seeds(seed, 0x72)])
        given = torch.cat([a.sqrt() * clean + (1 - a).sqrt() * noise, one["latent"] / generator.scale], 1)
        predicted = generator.unet(given, t, codes["prompt"]).sample
        expected = (predicted - (a.sqrt() * noise - (1 - a).sqrt() * clean)).square().mean()
        torch.testing.assert_close(loss[row], expected, atol=1e-5, rtol=0)


def test_timesteps_are_uniform_and_follow_the_seed(scenes):
    generator = made()
    calls = recorded(generator)
    codes = dict(generator.encode(scenes.pictures[:1]))
    codes |= generator.prepare(codes, NORMALS, scenes.pictures[:1], scenes.valid[:1])
    many = {name: value[:1] for name, value in codes.items()}
    losses = []
    for seed in (7, 8, 7):
        losses.append(generator.loss({**many, "seed": torch.tensor([seed])}, NORMALS))
    assert torch.equal(losses[0], losses[2])
    assert not torch.equal(losses[0], losses[1])
    assert calls[0][1].tolist() == calls[2][1].tolist() != calls[1][1].tolist()
    drawn = torch.tensor([mix_seeds(mix_seeds(1234, 1, position), 0x71) % 1000 for position in range(20000)])
    assert (drawn.min(), drawn.max()) == (0, 999)
    counts = torch.histc(drawn.float(), 10, 0, 1000)
    assert ((counts - 2000).abs() < 5 * 2000**0.5).all()


def test_the_picture_goes_in_unscaled_and_beside_the_noise(scenes):
    generator = made()
    calls = recorded(generator)
    codes = generator.encode(scenes.pictures)
    first = generator.render(codes, NORMALS)
    mode = generator.vae.encode(scenes.pictures * 2 - 1).latent_dist.mode()
    assert len(calls) == 3
    for given, timesteps in calls:
        assert given.shape == (4, 8, 16, 16)  # prompt and no prompt, of two pictures; no third branch
        torch.testing.assert_close(given[:2, 4:], mode)
        assert torch.equal(given[:2], given[2:])
        assert len(set(timesteps.tolist())) == 1
    assert [int(t[0]) for _, t in calls] == [999, 666, 333]
    start = calls[0][0][:, :4]
    assert torch.equal(start[0], start[1])
    assert torch.equal(generator.render(codes, NORMALS), first)


def test_the_third_branch_sees_nothing(scenes):
    generator = made(image_guidance=1.5)
    calls = recorded(generator)
    generator.render(generator.encode(scenes.pictures), NORMALS)
    assert calls[0][0].shape == (6, 8, 16, 16)
    assert not calls[0][0][4:, 4:].any()
    assert calls[0][0][2:4, 4:].any()


def test_the_blind_start_from_the_picture_and_never_see_it(scenes):
    generator = tiny_blind()
    calls = recorded(generator)
    codes = generator.encode(scenes.pictures)
    generator.render(codes, NORMALS)
    assert [int(t[0]) for _, t in calls] == [500, 250]  # the second half of 999, 749, 500, 250
    assert not any(given[:, 4:].any() for given, _ in calls)
    a = generator.alphas[500]
    noise = noise_like(codes["latent"][:1], [mix_seeds(0, 0x73, 0)])
    expected = a**0.5 * codes["latent"] + (1 - a) ** 0.5 * noise
    torch.testing.assert_close(calls[0][0][:2, :4], expected, atol=1e-5, rtol=0)
    prepared = generator.prepare(codes, NORMALS, scenes.pictures, scenes.valid)
    generator.loss({**codes, **prepared, "seed": torch.tensor([1, 2])}, NORMALS)
    assert not calls[-1][0][:, 4:].any()


def test_at_full_strength_the_blind_know_nothing_of_the_picture(scenes):
    generator = tiny_blind()
    generator.sampling = Sampling(steps=2)
    first, other = generator.render(generator.encode(scenes.pictures), NORMALS)
    assert torch.equal(first, other)


def test_a_map_depends_on_its_noise_seed(scenes):
    codes = tiny_augmented().encode(scenes.pictures)
    first, again, other = (made(noise_seed=s).render(codes, DEPTH) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3


@pytest.mark.parametrize("intrinsic", [NORMALS, DEPTH], ids=lambda i: i.name)
def test_several_seeds_give_their_mean_and_spread(intrinsic, scenes):
    several = made(seeds=3)
    codes = several.encode(scenes.pictures)
    picture, spread = several.render_with_spread(codes, intrinsic)
    assert torch.equal(several.render(codes, intrinsic), picture)
    assert spread.shape == (2, 1, 64, 64)
    drawn = [intrinsic.from_picture(one) for one in several._draws(codes, intrinsic)]
    assert torch.equal(intrinsic.from_picture(made().render(codes, intrinsic)), drawn[0])
    total, found = torch.stack(drawn).mean(0), intrinsic.from_picture(picture)
    if intrinsic is DEPTH:
        torch.testing.assert_close(found, total, atol=1e-6, rtol=0)
        expected = torch.stack(drawn).std(0, correction=0)
        torch.testing.assert_close(spread, expected, atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(found, torch.nn.functional.normalize(total, dim=1), atol=1e-5, rtol=0)
        cosines = torch.stack([(one * found).sum(1, keepdim=True) for one in drawn]).clamp(-1, 1)
        torch.testing.assert_close(spread, cosines.double().arccos().rad2deg().mean(0).float(), atol=0.1, rtol=0)
    assert spread.mean() > 1e-4


def test_full_size_counts():
    generator = augmented_skeleton()
    assert sum(p.numel() for p in generator.unet.parameters()) == 865_922_244
    assert generator.resolution == (512, 512)
    assert generator.provenance["picture_channels"] == "zeros"
    adapter = LoraAdapter(rank=8)
    adapter.attach(generator.net, generator.targets)
    assert sum(p.numel() for p in adapter.parameters()) == 1_659_904
    assert sum(hasattr(module, "lora_A") for module in generator.net.modules()) == 128


def test_from_fit_to_written_maps_with_their_spread(sd_folder, pix2pix, tmp_path):
    from ilora_cli.predict import predict
    from ilora_core.maps_io import write_map

    scenes = make_scenes(64, 64)
    for name in ("pictures", "normals"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
    for row in range(2):
        pixels = (scenes.pictures[row].permute(1, 2, 0).numpy() * 255).round().astype("uint8")
        Image.fromarray(pixels).save(tmp_path / "pairs" / "pictures" / f"s{row}.png")
        write_map(
            tmp_path / "pairs" / "normals" / f"s{row}.npy", scenes.maps["normals"][row], scenes.valid[row], NORMALS
        )
    settings = {
        "generator": {"weights": str(sd_folder), "image_weights": str(pix2pix), "resolution": 64, "steps": 2},
        "adapter": {"rank": 2},
        "train": {"steps": 2, "batch": 2, "keep_every": 2},
        "runtime": {"device": "cpu"},
    }
    config = FitConfig("sd21-aug", (NORMALS,), pairs=str(tmp_path / "pairs"), validation=0, settings=settings)
    for _ in fit(config, tmp_path / "run"):
        pass
    artefacts = find_artefacts(tmp_path / "run")
    drawer = Predictor(artefacts, runtime=RuntimeConfig(device="cpu"), settings={"seeds": 2})
    maps = drawer(scenes.pictures[:1, :, :40], process="native")
    assert {name: value.shape for name, value in maps.items()} == {
        "normals": (1, 3, 40, 64),
        "spread-normals": (1, 1, 40, 64),
    }
    assert drawer.intrinsics["spread-normals"].unit == "deg"
    alone = Predictor(artefacts, runtime=RuntimeConfig(device="cpu"))(scenes.pictures[:1])
    assert set(alone) == {"normals"}
    predict(
        [str(tmp_path / "pairs" / "pictures" / "s0.png")],
        [str(tmp_path / "run")],
        str(tmp_path / "maps"),
        samples=0,
        format_="npy",
        process="native",
        normals="opencv",
        preview=True,
        overwrite=False,
        generator="",
        seed=0,
        device="cpu",
        precision="fp32",
        set_=["generator.seeds=2"],
        json=True,
    )
    for name in ("normals/s0.npy", "spread-normals/s0.npy", "spread-normals_preview/s0.png"):
        assert (tmp_path / "maps" / name).is_file()


def test_a_plan_counts_the_evaluations_that_strength_leaves():
    from ilora_core.plan import make_plan
    from ilora_core.plugins import load_plugins

    work = {
        name: make_plan(load_plugins(), name, settings={}, resolution=64).flops for name in ("sd21-aug", "sd21-sdedit")
    }
    whole, half = (work[name]["predict_picture"] for name in ("sd21-aug", "sd21-sdedit"))
    assert half < 0.7 * whole  # 12 steps of 25; encoding and decoding stay
