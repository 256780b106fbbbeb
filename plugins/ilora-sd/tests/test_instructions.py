"""Textual inversion and VISII: where what is learnt stands, on every text encoder, in one step and in many."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.attaching import attach
from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.fit import fit
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.mixture import mix
from ilora_core.options import resolve_fit
from ilora_core.plugins import load_plugins
from ilora_core.testing.exercise import loss_of, targets_for
from ilora_sd import factories, factories_flux, factories_large
from ilora_sd.instructions import TextualInversion, Visii

MADE = (
    factories.tiny,
    factories.tiny_augmented,
    factories_large.tiny_sdxl,
    factories_large.tiny_sd3,
    factories_flux.tiny_flux1,
)
KINDS = (lambda **given: TextualInversion(tokens=3, **given), Visii)


def perturb(adapter, by=0.3):
    with torch.no_grad():
        for value in adapter.parameters():
            value += by


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("kind", KINDS, ids=["textual-inversion", "visii"])
def test_on_every_generator(make, kind):
    """A fresh one changes neither render nor loss; gradients reach each of its tensors and nothing else."""
    generator, adapter = make(), kind()
    codes, scenes = generator.sample(2, seed=0), targets_for(generator, NORMALS)
    drawn, loss = generator.render(codes, NORMALS), loss_of(generator, codes, NORMALS, *scenes)
    attach(adapter, generator, NORMALS, generator.targets)
    assert torch.equal(generator.render(codes, NORMALS), drawn)
    assert torch.equal(loss_of(generator, codes, NORMALS, *scenes), loss)
    generator.park()
    loss_of(generator, codes, NORMALS, *scenes).mean().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in adapter.parameters())
    assert all(p.grad is None for p in [*generator.net.parameters(), *generator.text_encoder.parameters()])
    perturb(adapter)
    assert not torch.equal(generator.render(codes, NORMALS), drawn)
    assert generator.layouts(adapter.state_dict(), adapter.config()) == {}


def test_learnt_tokens_are_tokens():
    """The embeddings of other words in their places are those words: what E gives is what it gives for them."""
    generator, adapter = factories.tiny(), TextualInversion(tokens=3)
    other = generator._tokens("abc", generator.tokenizer)[0]
    own = generator._tokens("xyz", generator.tokenizer)[0]
    attach(adapter, generator, NORMALS, ())
    layer = generator.text_encoder.get_input_embeddings()
    adapter.load_state_dict({"text_encoder": layer(other[1:4]).detach()})
    expected = generator.embed("abc")["prompt"]
    assert not torch.equal(generator.embed("xyz")["prompt"], expected)
    assert [int(i) for i in own[4:]] == [int(i) for i in other[4:]], "the same end and padding"
    assert torch.equal(adapter.conditions("xyz")["prompt"], expected)
    assert torch.equal(generator.embed("abc")["prompt"], expected), "the hooks are gone"


def test_guidance_keeps_its_empty_prompt():
    generator, adapter = factories.tiny_augmented(), Visii()
    attach(adapter, generator, NORMALS, ())
    seen = []
    call = generator._call
    generator._call = lambda latent, timesteps, conditions: (
        seen.append(conditions["prompt"]) or call(latent, timesteps, conditions)
    )
    perturb(adapter)
    generator.render(generator.encode(torch.rand(1, 3, *generator.resolution)), NORMALS)
    learnt, blank = adapter.conditions("")["prompt"][0], generator.embed("")["prompt"][0]
    rows = [row for prompts in seen for row in prompts]
    assert any(torch.equal(row, learnt) for row in rows)
    assert any(torch.equal(row, blank) for row in rows)
    assert all(torch.equal(row, learnt) or torch.equal(row, blank) for row in rows)


def test_two_on_one_generator_are_drawn_one_by_one():
    generator = factories.tiny()
    codes = generator.sample(1, seed=0)
    adapters = [TextualInversion(name="normals"), TextualInversion(name="depth", tokens=2)]
    for by, adapter, intrinsic in zip((0.2, 0.4), adapters, (NORMALS, DEPTH), strict=True):
        attach(adapter, generator, intrinsic, ())
        perturb(adapter, by)
    assert mix(adapters) is None
    drawn = []
    for adapter in adapters:
        adapter.activate(trainable=False)
        drawn.append(generator.render(codes, NORMALS))
    assert not torch.equal(*drawn)
    adapters[0].activate()
    assert torch.equal(generator.render(codes, NORMALS), drawn[0])
    assert [[p.requires_grad for p in adapter.parameters()] for adapter in adapters] == [[True], [False]]


def test_refusals():
    generator = factories.tiny()
    with pytest.raises(ConfigError, match="at least 1"):
        TextualInversion(tokens=0)
    with pytest.raises(ConfigError, match="at most 14 for this generator's text encoder, not 15"):
        attach(TextualInversion(tokens=15), generator, NORMALS, ())
    with pytest.raises(ConfigError, match=r"visii needs a generator that is told by words.* Use --adapter lora"):
        Visii().adopt(object(), NORMALS)
    with pytest.raises(ConfigError, match=r"call adopt\(generator, intrinsic\)"):
        next(Visii().parameters())
    adapter = Visii()
    attach(adapter, generator, NORMALS, ())
    with pytest.raises(ConfigError, match="another generator"):
        adapter.attach(torch.nn.Linear(1, 1), ())
    with pytest.raises(ConfigError, match="LoraAdapter cannot share a generator with a Visii"):
        attach(LoraAdapter(), generator, NORMALS, generator.targets)
    with pytest.raises(ArtefactError, match="does not fit"):
        adapter.load_state_dict({"prompt": torch.zeros(1, 2, 3)})


def test_a_preset_that_is_not_for_it_is_named_before_anything_is_loaded(tmp_path):
    given = {"generator": "rooms", "source": "rooms", "intrinsic": "normals", "adapter": "visii"}
    config, _ = resolve_fit(load_plugins(), given, {})
    with pytest.raises(ConfigError, match=r"has no setting 'rank'.* give --preset none"):
        next(fit(config, tmp_path / "run"))
    assert not Path(tmp_path, "run").exists()


@pytest.mark.parametrize(
    ("adapter", "generator", "given"),
    [
        ("textual-inversion", "rooms", ["--set", "adapter.tokens=4", "--lr", "0.1"]),
        ("visii", "rooms-aug", ["--lr", "0.1", "--set", "generator.steps=2"]),
    ],
)
def test_fit_and_predict(tmp_path: Path, adapter, generator, given):
    def ilora(*words):
        done = subprocess.run(
            [sys.executable, "-m", "ilora_cli.main", *words],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    place = ["--source", "rooms", "--intrinsic", "normals", "--limit", "8", "--validation", "2", "--preset", "none"]
    ilora(
        "fit",
        "-g",
        generator,
        "--adapter",
        adapter,
        *place,
        *given,
        "--steps",
        "24",
        "--set",
        "train.keep_every=24",
        "--out",
        "run",
        "--device",
        "cpu",
    )
    lines = [json.loads(line) for line in Path(tmp_path, "run/normals/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-8:]) < sum(losses[:8])
    config = json.loads(Path(tmp_path, "run/normals/adapter_config.json").read_text())
    assert config["prompt"] == NORMALS.prompt
    assert not Path(tmp_path, "run/normals/pytorch_lora_weights.safetensors").exists()
    ilora("predict", "--samples", "1", "--adapter", "run", "--out", "maps", "--format", "npy", "--device", "cpu")
    assert list(Path(tmp_path, "maps").rglob("*normals*"))
