"""Hostile archives, damaged checkpoints and networks without end: one clear error each, within bounded memory."""

import io
import pickletools
import random
import struct
import tracemalloc
import zipfile

import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_stylegan import pickle_machine
from ilora_stylegan.checkpoints import Checkpoint, read_checkpoint
from ilora_stylegan.pickles import Dead, read_pickle

BOUND = 32 << 20


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def identity(key: str = "0", kind: bytes = b"ctorch\nFloatStorage\n", count: bytes = b"K\x04") -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + count + b"tQ"


def tensor(of: bytes) -> bytes:
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + of + b"K\x00K\x04\x85K\x01\x85\x89}tR"


@pytest.fixture
def archive(tmp_path):
    """Members -> a zip file; the pickle's storages are its own."""

    def write(pickle=None, *, method=zipfile.ZIP_STORED, **members):
        path = tmp_path / "evil.pt"
        content = {"x/data.pkl": b"\x80\x02" + (pickle or tensor(identity())) + b".", "x/data/0": bytes(16), **members}
        with zipfile.ZipFile(path, "w", method) as file:
            for name, data in content.items():
                if data is not None:
                    file.writestr(name, data)
        return path

    return write


def test_an_honest_archive_is_read(archive):
    assert torch.equal(read_pickle(archive()).load(), torch.zeros(4))


def test_paths_in_an_archive_lead_nowhere(archive, tmp_path):
    before = sorted(tmp_path.parent.rglob("*"))
    path = archive(**{"../../escaped": b"x", "/absolute": b"x", "x/../data/1": b"x"})
    assert torch.equal(read_pickle(path).load(), torch.zeros(4))
    assert sorted(tmp_path.parent.rglob("*")) == sorted([*before, path])
    with pytest.raises(WeightsError, match="the archive lacks"):
        read_pickle(archive(tensor(identity("../../../etc/passwd"))))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pickle": tensor(identity("1"))}, "the archive lacks"),
        ({"x/data.pkl": None}, r"no data\.pkl"),
        ({"y/data.pkl": b"N."}, r"no data\.pkl"),
        ({"x/data/0": bytes(15)}, "declares 4 numbers"),
        ({"method": zipfile.ZIP_DEFLATED}, r"no data\.pkl"),
        ({"pickle": tensor(identity(count=b"\x8a\x06\x00\x00\x00\x00\x00\x01"))}, "malformed|declares"),
        ({"pickle": tensor(identity(count=b"J\xff\xff\xff\xff"))}, "malformed"),
        ({"pickle": tensor(identity(kind=b"cos\nsystem\n"))}, "unknown kind"),
        ({"pickle": tensor(identity(kind=text("FloatStorage")))}, "malformed"),
        ({"pickle": text("storage") + b"Q"}, "persistent id"),
        ({"pickle": b"(" + text("module") + b"NNNNtQ"}, "persistent id"),
        ({"pickle": b"Pstorage\n"}, "persistent id"),
        ({"pickle": b"\x80\x63N"}, "protocol 99"),
    ],
)
def test_archives_that_do_not_fit_are_refused(archive, changes, words):
    with pytest.raises(WeightsError, match=words):
        read_pickle(archive(**changes))


def test_a_zip_bomb_is_not_unpacked(archive):
    path = archive(method=zipfile.ZIP_DEFLATED, **{"x/data/1": bytes(64 << 20)})
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(WeightsError, match=r"data\.pkl"):
        read_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BOUND


def test_a_directory_that_fills_the_file_is_refused(tmp_path):
    """A zip's directory is parsed whole, so it is bounded."""
    size = 9 << 20
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 4, 0)
    (tmp_path / "evil.pt").write_bytes(b"PK\x03\x04" + bytes(size) + end)
    with pytest.raises(WeightsError, match="absurdly large"):
        read_pickle(tmp_path / "evil.pt")


@pytest.mark.parametrize("kept", [4, 10, 100, -1, -22, -60])
def test_a_cut_archive_is_refused(archive, kept):
    path = archive()
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"evil\.pt"):
        read_pickle(path)


def test_an_archive_may_call_nothing_but_tensors(archive, tmp_path):
    evil = b"cos\nsystem\n" + text(f"touch {tmp_path / 'canary'}") + b"\x85R"
    assert isinstance(read_pickle(archive(evil)), Dead)
    nested = b"ctorch.storage\n_load_from_bytes\nC\x02N.\x85R"
    assert isinstance(read_pickle(archive(nested)), Dead)
    assert not (tmp_path / "canary").exists()


def test_a_cut_stream_is_refused_wherever_it_is_cut(tmp_path):
    whole = io.BytesIO()
    torch.save({"a": torch.ones(3)}, whole, _use_new_zipfile_serialization=False)
    path = tmp_path / "cut.pt"
    for kept in range(1, len(whole.getvalue())):
        path.write_bytes(whole.getvalue()[:kept])
        with pytest.raises(WeightsError, match=r"cut\.pt"):
            read_pickle(path)


def test_a_cut_checkpoint_is_refused_wherever_it_is_cut(oracle, tmp_path):
    whole = oracle("sg3_t").path.read_bytes()
    path = tmp_path / "cut.pkl"
    for kept in [1, 2, 3, 10, 11, 12, 50, *range(1000, len(whole), len(whole) // 23), len(whole) - 1]:
        path.write_bytes(whole[:kept])
        with pytest.raises(WeightsError, match=r"cut\.pkl"):
            read_checkpoint(path)


def test_a_flipped_instruction_gives_an_error_or_a_checkpoint(oracle, tmp_path):
    """Never another exception."""
    whole = oracle("sg3_t").path.read_bytes()
    places = [place for _, _, place in pickletools.genops(whole)]
    draw = random.Random(0)
    path = tmp_path / "flipped.pkl"
    outcomes, messages = set(), []
    for _ in range(40):
        flipped = bytearray(whole)
        flipped[draw.choice(places) + draw.randrange(3)] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            outcomes.add(type(read_checkpoint(path)))
        except WeightsError as error:
            outcomes.add(type(error))
            messages.append(str(error))
    assert all("flipped.pkl" in message for message in messages)
    assert outcomes == {Checkpoint, WeightsError}


def _module(children: bytes) -> bytes:
    """A record of a module with these children, remembered as number 1 before it has them."""
    tables = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}q\x01"
    state = b"}(" + tables + b"u"
    meta = b"}(" + text("type") + text("class") + text("class_name") + text("M") + text("state") + state + b"u"
    return (
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n("
        + meta
        + b"tRq\x02"
        + b"0h\x01"
        + children
        + b"0h\x02"
    )


def test_a_network_that_contains_itself_is_refused(tmp_path):
    """mapping = synthesis = b4 = the network itself."""
    names = b"".join(text(name) + b"h\x02" for name in ("mapping", "synthesis", "b4", "conv1", "affine", "torgb"))
    path = tmp_path / "endless.pkl"
    path.write_bytes(b"}" + text("G_ema") + _module(b"(" + names + b"u") + b"s.")
    with pytest.raises(WeightsError, match="parts have no end"):
        read_checkpoint(path)


def test_a_generator_of_laughing_tuples_is_not_written_out(tmp_path):
    laugh = b"K\x01" + b"2\x86" * 200
    path = tmp_path / "laugh.pkl"
    for root in (
        b"}" + text("G_ema") + laugh + b"s",
        b"(NN" + laugh + b"t",
        laugh,
        b"}(" + text("g_ema") + laugh + b"u",
    ):
        path.write_bytes(root + b".")
        with pytest.raises(WeightsError, match=r"a tuple|a dict"):
            read_checkpoint(path)


def test_nesting_a_hundred_thousand_deep_does_no_harm(tmp_path):
    path = tmp_path / "deep.pkl"
    path.write_bytes(b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(WeightsError, match="its content is a list"):
        read_checkpoint(path)


def test_the_number_of_instructions_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_machine, "_MOST_STEPS", 1000)
    path = tmp_path / "long.pkl"
    path.write_bytes(b"N0" * 490 + b"N.")
    assert read_pickle(path) is None
    path.write_bytes(b"N0" * 501 + b"N.")
    with pytest.raises(WeightsError, match="more than 1,000 instructions"):
        read_pickle(path)
