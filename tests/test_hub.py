"""Where weights come from: which place served, what is compared, and what an error says."""

import hashlib
import logging

import pytest

from ilora_core.errors import WeightsError
from ilora_core.hub import find_weights, is_hub_id, snapshot
from ilora_core.registry import Registry, Weights

FILE = "unet/weights.safetensors"
DIGEST = hashlib.sha256(b"weights").hexdigest()
DIRECTIONS = "Draw them yourself."


@pytest.fixture
def served(tmp_path):
    """What a place serves: a folder named as the revision, with FILE."""
    (tmp_path / "abc123" / "unet").mkdir(parents=True)
    (tmp_path / "abc123" / FILE).write_bytes(b"weights")
    return tmp_path / "abc123"


class Places:
    """Stands in for the hub: `answers[id]` is a folder, or an error to raise; `asked` are the calls."""

    def __init__(self, **answers):
        self.answers, self.asked = {name.replace("_", "/"): answer for name, answer in answers.items()}, []

    def __call__(self, source, *, revision, local_only):
        self.asked.append((source, revision, local_only))
        answer = self.answers.get(source, FileNotFoundError(f"404: no {source}\nsee elsewhere"))
        if isinstance(answer, Exception):
            raise answer
        return answer


def find(weights, places=None, *, sources=("first/toy", "second/toy"), sha256=None, **options):
    """`find_weights` where a registry knows "toy"."""
    toy = Weights("toy", sources, "a licence", revision="main", sha256=sha256 or {})
    registry = Registry({}, {"toy": toy}, {})
    return find_weights(weights, places or Places(), directions=DIRECTIONS, registry=registry, **options)


def test_a_path_is_taken_as_it_is(served):
    assert find(str(served)) == (served, {"weights": str(served), "served_by": "local path"})
    assert find(str(served), folders_only=True)[1]["served_by"] == "local folder"
    file = str(served / FILE)
    assert find(file)[0] == served / FILE
    with pytest.raises(WeightsError, match=r"there are no weights at .*: neither a folder, a hub id nor a name in"):
        find(file, folders_only=True)


def test_the_second_place_serves_and_is_named(served, caplog):
    places = Places(second_toy=served)
    with caplog.at_level(logging.INFO, logger="ilora"):
        path, told = find("toy", places)
    assert path == served
    assert told == {
        "weights": "toy",
        "served_by": "second/toy",
        "revision": "abc123",
        "verified": [],
        "licence": "a licence",
        "failed": ["first/toy: FileNotFoundError: 404: no first/toy"],
    }
    assert places.asked == [("first/toy", "main", False), ("second/toy", "main", False)]
    assert "weights toy: served by second/toy, revision abc123" in caplog.text


def test_a_hub_id_is_one_place_without_a_record(served):
    places = Places(someone_model=served)
    told = find("someone/model", places)[1]
    assert told == {"weights": "someone/model", "served_by": "someone/model", "revision": "abc123", "verified": []}
    assert places.asked == [("someone/model", None, False)]


def test_one_error_lists_all_places_and_what_to_do():
    with pytest.raises(WeightsError) as caught:
        find("toy", local_only=True, sources=("first/toy", "https://x.org/toy.pt"))
    assert str(caught.value) == (
        "no place could serve 'toy' (2 tried):\n"
        "  first/toy: FileNotFoundError: 404: no first/toy\n"
        "  https://x.org/toy.pt: it is not a hub id\n"
        "local_only is set, so only the local cache was searched.\n"
        "Draw them yourself."
    )
    with pytest.raises(WeightsError) as caught:
        find("toy")
    assert "local_only" not in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "", "../a/b", "/a", "./a", "~/a", "a/", "https://x.org/a"])
def test_what_is_no_place_is_said_without_asking_anyone(name):
    places = Places()
    with pytest.raises(WeightsError, match=r"neither a path, a hub id nor a name in registry\.toml\. Draw them"):
        find(name, places)
    with pytest.raises(WeightsError, match=r"^No toy\. Draw them yourself\.$"):
        find(name, places, absent="No toy.")
    assert not places.asked
    assert not is_hub_id(name)


def test_digests_on_record_are_compared(served):
    recorded = {FILE: DIGEST, "not-fetched.safetensors": "0" * 64}
    assert find("toy", Places(first_toy=served), sha256=recorded)[1]["verified"] == [FILE]


def test_wrong_bytes_are_refused_and_the_next_place_tried(served, tmp_path):
    other = tmp_path / "other"
    (other / "unet").mkdir(parents=True)
    (other / FILE).write_bytes(b"others")
    with pytest.raises(WeightsError, match=rf"first/toy: .*{FILE} has SHA-256 .*but registry\.toml has {DIGEST[:16]}"):
        find("toy", Places(first_toy=other), sha256={FILE: DIGEST})
    both = Places(first_toy=other, second_toy=served)
    assert find("toy", both, sha256={FILE: DIGEST})[1]["served_by"] == "second/toy"


@pytest.mark.parametrize(("revision", "compared"), [(None, True), ("", True), ("main", True), ("other", False)])
def test_digests_belong_to_the_registered_revision(served, revision, compared):
    places = Places(first_toy=served)
    told = find("toy", places, sha256={FILE: DIGEST}, revision=revision)[1]
    assert told["verified"] == ([FILE] if compared else [])
    assert places.asked == [("first/toy", revision or "main", False)]


def test_a_snapshot_asks_the_hub_for_the_patterns(served, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **o: (asked.append((a, o)), str(served))[1])
    folder = snapshot("*.json", "*.safetensors")("a/b", revision="main", local_only=True)
    assert folder == served
    options = {"revision": "main", "allow_patterns": ["*.json", "*.safetensors"], "local_files_only": True}
    assert asked == [(("a/b",), options)]


def test_what_the_hub_s_cache_lacks_is_reported():
    with pytest.raises(WeightsError, match="no place could serve 'nobody/nothing'"):
        find("nobody/nothing", snapshot("*.json"), local_only=True)
