"""`ilora push`: exactly an artefact's own files, nothing of this machine, no token; the hub's errors in plain words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard, constants

from ilora_cli.main import main
from ilora_core import hub_repository
from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.hub_errors import hub_errors
from ilora_core.model_card import MARK
from ilora_core.publishing import prepared
from ilora_core.scrubbing import local_traces, scrubbed

ONE = {
    *("README.md", "adapter_config.json", "adapter_model.safetensors", "preview.png"),
    *("pytorch_lora_weights.safetensors", "run.json"),
}
SET = {"README.md", *(f"{name}/{file}" for name in ("normals", "depth") for file in ONE)}


@pytest.fixture
def one(tmp_path):
    import artefact_helpers

    return artefact_helpers.save_one(tmp_path / "normals")


@pytest.fixture(autouse=True)
def _helpers_are_loaded(pair_of_adapters):
    pass


def main_branch(hub, name, branch="main"):
    return hub.repositories[name].branches[branch]


def paths_in(ready):
    return {upload.path for upload in ready.files}


def test_exactly_the_artefacts_own_files(pair_of_adapters, one):
    with prepared(one, "me/one") as ready:
        assert paths_in(ready) == ONE
        assert {path.name for path in ready.folder.rglob("*")} == ONE
    assert not ready.folder.exists()
    with prepared(pair_of_adapters, "me/both") as ready:
        assert paths_in(ready) == SET
        assert ready.intrinsics == {"normals": "normals", "depth": "depth"}


def test_a_fit_of_one_map_goes_to_the_root(one, tmp_path):
    with prepared(tmp_path, "me/one") as ready:
        assert paths_in(ready) == ONE


def test_nothing_of_this_machine_is_published(pair_of_adapters):
    before = (pair_of_adapters / "normals" / "run.json").read_text()
    assert str(Path.cwd()) in before
    with prepared(pair_of_adapters, "me/both") as ready:
        for upload in ready.files:
            content = (ready.folder / upload.path).read_bytes()
            for secret in (str(Path.cwd()), str(Path.home()), "/home/", "nets with", "/ann"):
                assert secret.encode() not in content, upload.path
            assert len(content) == upload.size
        record = json.loads((ready.folder / "normals" / "run.json").read_text())
    assert record["config"]["pairs"] == "data"
    assert record["generator"]["settings"]["weights"] == "mine"
    assert (pair_of_adapters / "normals" / "run.json").read_text() == before


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/ann/data", "data"),
        ("/data", "data"),
        ("~/data/x", "x"),
        ("~ann", "~ann"),
        ("~ann/", "folder"),
        ("../ann/x.pt", "x.pt"),
        ("./x.pt", "x.pt"),
        ("C:\\Users\\ann\\x.pt", "x.pt"),
        ("file:///home/ann/x", "x"),
        (str(Path.home()), "folder"),
        ("no file at /home/ann/x/y.json, sorry", "no file at y.json, sorry"),
        ("see file:///home/ann/x.", "see x."),
        (f"in {Path.home()}/my nets/x", "in my nets/x"),
        ("https://huggingface.co/a/b/c", "https://huggingface.co/a/b/c"),
        ("owner/name", "owner/name"),
        ("runs/mine", "runs/mine"),
        ("normals and/or depth, 1/2, m / s", "normals and/or depth, 1/2, m / s"),
        ("to_out.0", "to_out.0"),
        ("", ""),
    ],
)
def test_scrubbing(text, left):
    assert scrubbed(text) == left
    assert scrubbed({"a": [text, 1, None]}) == {"a": [left, 1, None]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see /home/ann/x", True),
        ("/Users/ann", True),
        ("hf_" + "a" * 34, True),
        ("https://a.b/home/x", False),
        ("hf://a/b", False),
    ],
)
def test_what_counts_as_a_trace(text, found):
    assert bool(local_traces(text)) == found


def test_a_stated_licence_of_the_pictures(one, pair_of_adapters):
    with prepared(one, "me/one", data_licence="CC-BY-4.0") as ready:
        record = json.loads((ready.folder / "run.json").read_text())
        assert record["licences"]["pairs"] == "CC-BY-4.0"
        assert {link.kind for link in ready.chain.links} == {"unknown", "permissive"}
        assert "CC-BY-4.0" in (ready.folder / "README.md").read_text()
    record = json.loads((one / "run.json").read_text())
    record["config"] = {"samples": 4, "labeler": "toy"}
    (one / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="--data-licence"), prepared(one, "me/one", data_licence="MIT"):
        pass


def test_pictures_can_stay_at_home(one):
    with prepared(one, "me/one", preview=False) as ready:
        assert paths_in(ready) == ONE - {"preview.png"}
        assert "preview.png" not in (ready.folder / "README.md").read_text()


def test_your_own_card_goes_as_it_stands(one):
    own = "---\nlicense: mit\n---\n\n# Mine\n\n![](shown.png) ![](../outside.png) ![](state.pt) ![](.hidden.png)\n"
    (one / "README.md").write_text(own)
    (one / "shown.png").write_bytes(b"png")
    (one.parent / "outside.png").write_bytes(b"png")
    with prepared(one, "me/one") as ready:
        assert paths_in(ready) == ONE | {"shown.png"}
        assert (ready.folder / "README.md").read_text() == own
    (one / "README.md").write_text(own + MARK)
    with prepared(one, "me/one") as ready:
        assert ModelCard.load(ready.folder / "README.md").data.library_name == "ilora"
    (one / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(ArtefactError, match="front matter"), prepared(one, "me/one"):
        pass
    (one / "README.md").write_text("---\nlicense: mit\n---\nmade in /home/ann/lab\n")
    with pytest.raises(ArtefactError, match="/home/ann/lab"), prepared(one, "me/one"):
        pass


def test_what_is_not_fit_to_be_published(one, tmp_path):
    weights = one / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[:-4], b"", b"not safetensors"):
        weights.write_bytes(broken)
        with pytest.raises(ArtefactError, match="damaged"), prepared(one, "me/one"):
            pass
    weights.unlink()
    (tmp_path / "elsewhere.safetensors").write_bytes(whole)
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ArtefactError, match="link out of the folder"), prepared(one, "me/one"):
        pass
    weights.unlink()
    weights.write_bytes(whole)
    record = json.loads((one / "run.json").read_text())
    for name in ("../elsewhere.safetensors", "state.pt", ".hidden.safetensors"):
        (one / "run.json").write_text(json.dumps({**record, "layouts": [name]}))
        with pytest.raises(ArtefactError, match="lists"), prepared(one, "me/one"):
            pass
    (one / "run.json").unlink()
    with pytest.raises(ArtefactError, match=r"no run\.json"), prepared(one, "me/one"):
        pass
    with pytest.raises(ArtefactError, match="no folder"), prepared(tmp_path / "nothing", "me/one"):
        pass


def test_a_folder_that_links_elsewhere_is_not_followed(one, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "normals").symlink_to(one)
    with pytest.raises(ArtefactError, match="link out of"), prepared(tmp_path / "set", "me/one"):
        pass


def test_dry_run_needs_no_network_and_no_login(pair_of_adapters, tmp_path):
    """In a process of its own, offline, with a hub that does not exist."""
    command = [sys.executable, "-m", "ilora_cli.main", "push", str(pair_of_adapters), "me/both", "--dry-run", "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {one["path"] for one in told["files"]} == SET
    assert all(re.fullmatch(r"[0-9a-f]{64}", one["sha256"]) and one["bytes"] > 0 for one in told["files"])
    assert told["licences"]["commercial"] == "unclear"
    assert told["dry_run"]
    assert "commit" not in told


def test_push_makes_one_commit_with_those_files(hub, pair_of_adapters, capsys):
    assert main(["push", str(pair_of_adapters), "me/both", "--message", "first"]) == 0
    shown = capsys.readouterr().out
    assert set(main_branch(hub, "me/both")) == SET
    assert f"{hub.url}/me/both" in shown
    assert "look at:" in shown
    for line in main_branch(hub, "me/both").values():
        assert str(Path.home()).encode() not in line
    assert sum("/commit/" in path for _, path, _ in hub.requests) == 1
    card = ModelCard(main_branch(hub, "me/both")["README.md"].decode())
    assert "hf://me/both/depth" in card.text
    assert main(["push", str(pair_of_adapters), "me/both"]) == 0  # again: the repository exists


def test_push_to_a_branch_and_privately(hub, one, capsys):
    assert main(["push", str(one), "me/one", "--private", "--revision", "v1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"].endswith("/me/one")
    assert hub.repositories["me/one"].private
    assert set(main_branch(hub, "me/one", "v1")) == ONE
    assert main_branch(hub, "me/one") == {}
    assert b"hf://me/one@v1" in main_branch(hub, "me/one", "v1")["README.md"]
    hub.repositories["me/one"].private = False
    assert main(["push", str(one), "me/one", "--private"]) == 1
    assert "is public; nothing was sent" in capsys.readouterr().err
    assert main_branch(hub, "me/one") == {}


@pytest.mark.parametrize(
    ("status", "told"), [(401, "does not know you"), (403, "right to write"), (404, "no such repository")]
)
@pytest.mark.parametrize("where", ["POST /api/repos/create", "POST .*/commit/"])
def test_errors_of_the_hub_are_one_message_without_the_token(hub, one, capsys, monkeypatch, status, told, where):
    token = os.environ["HF_TOKEN"]
    monkeypatch.setenv("ILORA_DEBUG", "1")
    hub.refuse = {where: (status, f"rejected Bearer {token}")}
    assert main(["push", str(one), "me/one"]) == 1
    shown = "".join(capsys.readouterr())
    assert told in shown
    assert token not in shown
    assert shown.count("\nerror: ") == 1
    assert any(token in authorization for *_, authorization in hub.requests)  # it was sent where it belongs


def test_the_token_is_in_no_file(hub, one, tmp_path, capsys):
    token = os.environ["HF_TOKEN"].encode()
    assert main(["push", str(one), "me/one"]) == 0
    assert main(["pull", "hf://me/one", "--out", str(tmp_path / "back")]) == 0
    assert token.decode() not in "".join(capsys.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if token in path.read_bytes()]
    assert not [path for path, content in main_branch(hub, "me/one").items() if token in content]
    (one / "README.md").write_text(f"---\nlicense: mit\n---\n{token.decode()}\n")
    assert main(["push", str(one), "me/one"]) == 1
    shown = capsys.readouterr().err
    assert "an access token" in shown
    assert token.decode() not in shown


def test_no_network_and_offline(one, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert main(["push", str(one), "me/one"]) == 1
    assert "no connection to the hub" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push", str(one), "me/one"]) == 1
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


class Answered(OSError):
    """As the hub's library raises an answer; it retries these for half a minute."""

    def __init__(self, status):
        super().__init__(f"{status} for url")
        self.response, self.server_message = SimpleNamespace(status_code=status), None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "the disk is full"),
        (PermissionError(13, "Permission denied", "/cache"), "Permission denied /cache"),
        (TimeoutError("slow"), "no connection"),
        (RuntimeError("upload of shard failed"), "upload of shard failed"),
        (Answered(429), "asks for a pause (429)"),
        (Answered(409), "refuses (409)"),
        (Answered(503), "has trouble (503)"),
    ],
)
def test_errors_of_this_machine(hub, one, capsys, monkeypatch, error, told):
    class Failing:
        def create_repo(self, *_, **__):
            raise error

    monkeypatch.setattr(hub_repository, "_api", Failing)
    assert main(["push", str(one), "me/one"]) == 1
    assert told in capsys.readouterr().err


def test_a_bug_stays_a_bug():
    with pytest.raises(KeyError), hub_errors("push to", "me/one"):
        raise KeyError("x")


@pytest.mark.parametrize(
    "name", ["one", "a/b/c", "me/../x", "me/a b", "-me/x", "me/x@v1", "hf://me", "me/a--b", "https://hf.co/a/b"]
)
def test_names_that_are_no_repository(one, name, capsys):
    assert main(["push", str(one), "--dry-run", "--", name]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err


def test_no_option_takes_a_token(capsys):
    assert main(["push", "--help"]) == 0
    assert "--token" not in capsys.readouterr().out
