"""Checkpoints in miniature: folders that the generator takes, the same after a kill, and no run under another's name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ilora_core.plugins import load_plugins
from ilora_rooms import pretrain_loop
from ilora_rooms import trajectory as module
from ilora_rooms.codec import PatchCodec
from ilora_rooms.data import Pictures, write_shard
from ilora_rooms.generator import SHIPPED
from ilora_rooms.pretrain import Plan, Trainer
from ilora_rooms.pretrain_options import refuse_or_resume
from ilora_rooms.trajectory import checkpoint_folder, main, parse, shipped_plan, trajectory

PLAN = replace(shipped_plan(), batch=4, warmup=2, widths=(16, 32, 32))
VISITS = (0, 8, 18)


class Killed(Exception):
    """Stands for a kill: nothing is saved on the way out."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    write_shard(folder, 0, size=64, count=6)
    return folder


def _run(out: Path, cache: Path, plan: Plan = PLAN, visits=VISITS) -> bool:
    args = parse(["--out", str(out), "--save-minutes", "0"])  # a state after each step
    out.mkdir(exist_ok=True)
    data = Pictures(cache)
    data.rescan()
    trainer = Trainer(plan, PatchCodec.from_pretrained(SHIPPED, subfolder="vae"), data)
    refuse_or_resume(trainer, out, wanted=True)
    return trajectory(trainer, out, visits, args)


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert _run(out, cache)
    return out


def _hashes(out: Path) -> dict[str, dict[str, str]]:
    return {p.name: json.loads((p / "weights.json").read_text())["sha256"] for p in sorted(out.glob("visits-*"))}


def test_every_checkpoint_is_a_generator_with_the_shipped_codec(whole):
    host, seen = load_plugins(), []
    for visits in VISITS:
        folder = checkpoint_folder(whole, visits)
        generator = host.make("generators", "rooms", weights=str(folder))
        seen.append(generator.provenance["visits"])
        codec = PatchCodec.from_pretrained(SHIPPED, subfolder="vae")
        assert torch.equal(generator.vae.basis, codec.basis)
        assert {p.name for p in folder.iterdir()} == {p.name for p in SHIPPED.iterdir()}
    assert seen == [0, 8, 20]  # the first whole batch at or past the mark
    networks = {hashes["unet/diffusion_pytorch_model.safetensors"] for hashes in _hashes(whole).values()}
    assert len(networks) == len(VISITS)


def _killed_step(step):
    def stepped(self):
        if self.visits == 12:
            raise Killed
        return step(self)

    return stepped


def _killed_export(export):
    def exported(generator, folder, provenance):
        if folder.name == "visits-000008":
            raise Killed
        return export(generator, folder, provenance)

    return exported


@pytest.mark.parametrize(
    ("owner", "name", "kill"),
    [(Trainer, "step", _killed_step), (module, "export_folder", _killed_export)],
    ids=["at a step", "before an export"],
)
def test_a_killed_run_goes_on_to_the_same_folders(whole, cache, tmp_path, monkeypatch, owner, name, kill):
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, kill(getattr(owner, name)))
        with pytest.raises(Killed):
            _run(tmp_path, cache)
    assert set(_hashes(tmp_path)) < set(_hashes(whole))
    assert _run(tmp_path, cache)
    assert _hashes(tmp_path) == _hashes(whole)


def test_a_run_goes_on_only_as_itself_and_forwards(whole, cache):
    with pytest.raises(SystemExit, match="another plan"):
        _run(whole, cache, replace(PLAN, lr=1e-3), (0, 40))
    with pytest.raises(SystemExit, match="past 4"):
        _run(whole, cache, PLAN, (4,))


def test_a_signal_ends_it_with_a_state(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(
        pretrain_loop.signal, "signal", lambda number, handler: handler(number, None) if callable(handler) else None
    )
    assert not _run(tmp_path, cache)
    assert set(_hashes(tmp_path)) == {"visits-000000"}


@pytest.mark.parametrize("text", ["4,-1", "4,4", "four"])
def test_visits_are_different_numbers(text):
    with pytest.raises(SystemExit):
        parse(["--out", "x", "--visits", text])


def test_a_run_that_is_there_is_not_overwritten(whole, cache):
    with pytest.raises(SystemExit, match="--resume"):
        main(["--out", str(whole), "--shards", "0", "--cache", str(cache)])
