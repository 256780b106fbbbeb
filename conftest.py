"""For every test in the workspace: one thread per process, no hub, and a cache folder that is nobody's.

Two test processes with two threads each on two cores spend most of their time waiting for each other.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    before = os.environ.get("ILORA_CACHE")
    os.environ["ILORA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["ILORA_CACHE"]
    else:
        os.environ["ILORA_CACHE"] = before
