"""The label cache: never twice, never half, never lost. Labelling is killed, cut short and run side by side."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ilora_core.errors import DataError, PluginError
from ilora_core.intrinsics import DEPTH, NORMALS, Intrinsic
from ilora_core.label_cache import LabelCache, default_cache_root, picture_key
from ilora_core.labels import LabelledSource, cache_for, export_labels, label_source
from ilora_core.sources import PairsSource, Subset, TensorSource


class Brightness:
    """Depth = 1 + 9 × mean of the channels; counts what it was asked for."""

    intrinsics = (DEPTH,)
    version = "1.2"
    weights_hash = "sha256:0123456789abcdef0123456789abcdef"

    def __init__(self) -> None:
        self.asked = 0

    def label(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        self.asked += len(pictures)
        depth = 1 + 9 * pictures.mean(1, keepdim=True)
        return {"depth": (depth, pictures[:, :1] > 0.1)}


def pictures(n: int = 10, seed: int = 0, size: int = 8) -> TensorSource:
    return TensorSource(torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)), batch_size=3)


def run(labeler, source, cache, **settings) -> list[tuple[int, int, int]]:
    return [(p.done, p.total, p.reused) for p in label_source(labeler, source, cache, **settings)]


def test_labels_come_back_to_the_bit(tmp_path: Path) -> None:
    labeler, source = Brightness(), pictures()
    cache = cache_for(labeler, "bright", root=tmp_path, shard_size=4)
    assert run(labeler, source, cache, batch_size=4)[-1] == (10, 10, 0)
    assert cache.folder.name == "bright@1.2+0123456789ab"
    assert len(list(cache.folder.glob("shard-*.safetensors"))) == 3
    again = LabelledSource(source, LabelCache(tmp_path, "bright", version="1.2", weights_hash=labeler.weights_hash))
    assert again.intrinsics == (DEPTH,)
    assert len(again) == 10
    for batch, plain in zip(again, source, strict=True):
        value, valid = batch.maps["depth"]
        expected = labeler.label(plain.pictures)["depth"]
        assert torch.equal(value, expected[0])
        assert torch.equal(valid, expected[1])
        assert valid.dtype == torch.bool
        assert batch.keys == plain.keys


def test_nothing_is_labelled_twice(tmp_path: Path) -> None:
    labeler = Brightness()
    cache = cache_for(labeler, "bright", root=tmp_path)
    run(labeler, pictures(6), cache)
    renamed = TensorSource(pictures(6).pictures, keys=list("fedcba"))
    assert run(labeler, renamed, cache)[-1] == (6, 6, 6)
    doubled = TensorSource(torch.cat([pictures(8).pictures, pictures(8).pictures[:3]]))
    assert run(labeler, doubled, cache_for(labeler, "bright", root=tmp_path))[-1] == (11, 11, 9)
    assert labeler.asked == 8


def test_progress_never_runs_backwards(tmp_path: Path) -> None:
    labeler = Brightness()
    done = [d for d, _, _ in run(labeler, pictures(), cache_for(labeler, "b", root=tmp_path), batch_size=4)]
    assert done == sorted(done)
    assert done[-1] == 10


def test_settings_version_and_weights_tell_caches_apart(tmp_path: Path) -> None:
    plain, other = Brightness(), Brightness()
    other.version = "2"
    folders = {
        cache_for(plain, "b", root=tmp_path).folder,
        cache_for(plain, "b", {"size": 3}, root=tmp_path).folder,
        cache_for(plain, "b", {"size": 4}, root=tmp_path).folder,
        cache_for(other, "b", root=tmp_path).folder,
        cache_for(plain, "plugin/b", root=tmp_path).folder,
    }
    assert len(folders) == 5
    assert all(folder.parent == tmp_path for folder in folders)


def test_the_key_is_what_is_seen() -> None:
    a = torch.rand(3, 4, 6)
    assert picture_key(a) == picture_key(a.clone())
    assert picture_key(a) != picture_key(a.reshape(3, 6, 4))
    assert picture_key(a) != picture_key(a + 1e-3)
    assert picture_key(a.permute(0, 2, 1)) == picture_key(a.permute(0, 2, 1).contiguous())


def test_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILORA_CACHE", str(tmp_path / "c"))
    assert default_cache_root() == tmp_path / "c" / "labels"
    assert LabelCache(None, "x").folder.parent == tmp_path / "c" / "labels"
    assert not (tmp_path / "c").exists()  # looking costs nothing
    monkeypatch.delenv("ILORA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_root() == tmp_path / ".cache/ilora/labels"


def test_pictures_of_mixed_sizes(tmp_path: Path) -> None:
    labeler = Brightness()
    cache = cache_for(labeler, "b", root=tmp_path)

    class Mixed:
        intrinsics = ()
        keys = tuple(str(i) for i in range(6))

        def __len__(self) -> int:
            return 6

        def __iter__(self):
            for number, size in enumerate((4, 6, 4)):
                yield from TensorSource(
                    torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(number)),
                    keys=self.keys[2 * number : 2 * number + 2],
                )

    assert run(labeler, Mixed(), cache, batch_size=4)[-1] == (6, 6, 0)
    assert [b.maps["depth"][0].shape[-1] for b in LabelledSource(Mixed(), cache)] == [4, 6, 4]


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    labeler = Brightness()
    cache = cache_for(labeler, "b", root=tmp_path)
    run(labeler, Subset(pictures(), pictures().keys[:4]), cache)
    with pytest.raises(DataError, match=r"000004 has no label.*ilora label"):
        list(LabelledSource(pictures(), cache))


def test_several_maps_in_one_pass(tmp_path: Path) -> None:
    class Both(Brightness):
        intrinsics = (DEPTH, NORMALS)

        def label(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
            facing = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1).expand_as(pictures)
            return {**super().label(pictures), "normals": (facing, torch.ones_like(pictures[:, :1], dtype=torch.bool))}

    cache = cache_for(Both(), "both", root=tmp_path)
    run(Both(), pictures(), cache)
    assert set(next(iter(LabelledSource(pictures(), cache))).maps) == {"depth", "normals"}
    assert set(next(iter(LabelledSource(pictures(), cache, (NORMALS,)))).maps) == {"normals"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "promises depth and gives nothing"),
        ({"depth": (torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4, dtype=torch.bool))}, r"must be \(3, 1, 8, 8\)"),
        ({"depth": (torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8))}, "bool mask"),
        ({"depth": (torch.zeros(3, 3, 8, 8), torch.ones(3, 1, 8, 8, dtype=torch.bool))}, r"is \(3, 3, 8, 8\)"),
    ],
)
def test_a_labeler_that_breaks_its_promise(tmp_path: Path, given: dict, message: str) -> None:
    labeler = Brightness()
    labeler.label = lambda pictures: given
    with pytest.raises(PluginError, match=message):
        run(labeler, pictures(3), cache_for(labeler, "b", root=tmp_path))


def test_other_conventions_are_not_mixed(tmp_path: Path) -> None:
    cache_for(Brightness(), "b", root=tmp_path)
    changed = Brightness()
    changed.intrinsics = (Intrinsic("depth", 1, "", "relative_depth", kind="affine_disparity"),)
    with pytest.raises(DataError, match="new `version`"):
        cache_for(changed, "b", root=tmp_path)


def test_a_truncated_shard_is_labelled_again(tmp_path: Path) -> None:
    labeler = Brightness()
    cache = cache_for(labeler, "b", root=tmp_path, shard_size=4)
    run(labeler, pictures(), cache)
    victim = sorted(cache.folder.glob("shard-*.safetensors"), key=lambda p: p.stat().st_size)[-1]
    victim.write_bytes(victim.read_bytes()[:-100])
    (cache.folder / "shard-empty-1-x.safetensors").write_bytes(b"")
    again = cache_for(labeler, "b", root=tmp_path, shard_size=4)
    assert len(again) == 6
    assert victim in again.damaged
    assert len(again.damaged) == 2
    asked = labeler.asked
    assert run(labeler, pictures(), again)[-1] == (10, 10, 6)
    assert labeler.asked - asked == 4
    assert len(cache_for(labeler, "b", root=tmp_path)) == 10


def test_writers_side_by_side(tmp_path: Path) -> None:
    labeler = Brightness()
    one, two = (cache_for(labeler, "b", root=tmp_path, shard_size=2) for _ in range(2))
    run(labeler, pictures(), one)
    run(labeler, pictures(), two)  # did not look again: the same pictures twice, in shards of their own
    fresh = cache_for(labeler, "b", root=tmp_path)
    assert len(fresh) == 10
    run(labeler, pictures(4, seed=1), one)
    fresh.refresh()
    assert len(fresh) == 14
    assert len(list(LabelledSource(pictures(), fresh))) == 4


def test_leftovers_of_dead_writers_are_cleared(tmp_path: Path) -> None:
    cache = cache_for(Brightness(), "b", root=tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    import ilora_core.label_cache as module

    host = module._host()
    dead = cache.folder / f".shard-{host}-{ended.pid}-abc.safetensors.{ended.pid}.tmp"
    alive = cache.folder / f".shard-{host}-{os.getpid()}-abc.safetensors.{os.getpid()}.tmp"
    elsewhere = cache.folder / f".shard-other{host}-{ended.pid}-abc.safetensors.{ended.pid}.tmp"
    old = cache.folder / ".shard-elsewhere-1-abc.safetensors.1.tmp"
    for path in (dead, alive, elsewhere, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.refresh()
    assert [path.exists() for path in (dead, alive, elsewhere, old)] == [False, True, True, False]


_CHILD = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_labels import Brightness, pictures
from ilora_core.labels import cache_for, label_source

cache = cache_for(Brightness(), "b", root={root!r}, shard_size=2)
print("ready", flush=True)
for progress in label_source(Brightness(), pictures(60), cache, batch_size=1):
    print(progress.done, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_labeler_loses_at_most_one_shard(tmp_path: Path, seed: int) -> None:
    stop_at = random.Random(seed).randrange(6, 54)
    code = _CHILD.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin
    assert child.stdout
    with child.stdin, child.stdout:
        assert child.stdout.readline() == "ready\n"
        done = 0
        while done < stop_at:
            done = int(child.stdout.readline())
            if done < stop_at:
                child.stdin.write("\n")
                child.stdin.flush()
        child.send_signal(signal.SIGKILL)
        child.wait()
    labeler = Brightness()
    cache = cache_for(labeler, "b", root=tmp_path, shard_size=2)
    kept = len(cache)
    assert done - 2 < kept <= done
    assert run(labeler, pictures(60), cache)[-1] == (60, 60, kept)
    assert labeler.asked == 60 - kept
    for batch, plain in zip(LabelledSource(pictures(60), cache), pictures(60), strict=True):
        assert torch.equal(batch.maps["depth"][0], labeler.label(plain.pictures)["depth"][0])


def test_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """The process dies between the first byte of a shard and its rename."""
    code = _CHILD.format(tests=str(Path(__file__).parent), root=str(tmp_path)).replace(
        "cache = ",
        "import os, signal\n"
        "import ilora_core.label_cache as lc\n"
        "writes = []\n"
        "def die(fd):\n"
        "    writes.append(fd)\n"
        "    if len(writes) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache = ",
    )
    code = code.replace('print("ready", flush=True)', "lc.os.fsync = die").replace("sys.stdin.readline()", "pass")
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    folder = tmp_path / "b@1.2+0123456789ab"
    assert len(list(folder.glob(".shard-*.tmp"))) == 1
    cache = cache_for(Brightness(), "b", root=tmp_path)
    assert len(cache) == 4
    assert not list(folder.glob(".shard-*.tmp"))


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeler = Brightness()
    cache = cache_for(labeler, "b", root=tmp_path, shard_size=2)
    written = []

    def fsync(fd: int) -> None:
        written.append(fd)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("ilora_core.label_cache.os.fsync", fsync)
        with pytest.raises(DataError, match=r"cannot write .*shard-.*No space left.*kept"):
            run(labeler, pictures(), cache, batch_size=1)
    assert not list(cache.folder.glob(".*.tmp"))
    again = cache_for(labeler, "b", root=tmp_path, shard_size=2)
    assert len(again) == 6
    assert run(labeler, pictures(), again)[-1] == (10, 10, 6)


def test_export_with_provenance(tmp_path: Path) -> None:
    labeler, source = Brightness(), pictures()
    cache = cache_for(labeler, "b", {"x": 1}, root=tmp_path / "cache", provenance={"licence": "MIT"})
    run(labeler, source, cache)
    assert sum(export_labels(source, cache, tmp_path / "out")) == 10
    told = json.loads((tmp_path / "out/provenance.json").read_text())
    assert told["labeler"] == "b"
    assert told["version"].startswith("1.2-")
    assert told["licence"] == "MIT"
    assert told["settings"] == {"x": 1}
    assert told["intrinsics"][0]["name"] == "depth"
    assert told["pictures"] == 10
    pairs = PairsSource(tmp_path / "out", (DEPTH,), batch_size=3)
    for batch, labelled in zip(pairs, LabelledSource(source, cache), strict=True):
        assert torch.equal(batch.pictures, labelled.pictures)
        assert torch.equal(batch.maps["depth"][1], labelled.maps["depth"][1])
        valid = batch.maps["depth"][1]
        assert torch.equal(batch.maps["depth"][0][valid], labelled.maps["depth"][0][valid])


def test_shards_carry_their_provenance(tmp_path: Path) -> None:
    from safetensors import safe_open

    labeler = Brightness()
    cache = cache_for(labeler, "b", root=tmp_path, provenance={"licence": "MIT"})
    run(labeler, pictures(2), cache)
    with safe_open(next(cache.folder.glob("shard-*")), framework="pt") as shard:
        told = json.loads(shard.metadata()["provenance"])
    assert told["licence"] == "MIT"
    assert told["weights_hash"] == labeler.weights_hash
