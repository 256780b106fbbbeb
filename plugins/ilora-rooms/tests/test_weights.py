"""The shipped files: every hash, the size limit, the licence, and no trace of where they were made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ilora_rooms.aug import SHIPPED as AUG
from ilora_rooms.export import LIMIT_BYTES
from ilora_rooms.generator import SHIPPED, rooms

FOLDERS = [SHIPPED, AUG, *sorted((Path(__file__).parents[1] / "checkpoints").iterdir())]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_files_are_the_recorded_ones(folder):
    card = json.loads((folder / "weights.json").read_text())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"weights.json"}
    assert files == set(card["sha256"])
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert card["licence"] == "Apache-2.0"
    assert sum((folder / name).stat().st_size for name in files) <= LIMIT_BYTES
    for name in files:
        assert not name.endswith(".json") or "/tmp" not in (folder / name).read_text()


def test_the_shipped_model_says_where_it_comes_from():
    model = rooms()
    assert model.provenance["weights"] == "shipped with ilora-rooms"
    assert model.provenance["visits"] > 0
    assert model.resolution == (64, 64)
