"""Cells on a Ray cluster: a task per cell, which does what the sequential sweep does and leaves it in the same folder.

The folder, the data and the installed packages must be the same on every node. A cell gets one CPU, and one GPU where the cluster
has any and `runtime.device` is not cpu. ILORA_… and HF_… variables and the module path go along.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ilora_core.errors import MissingDependency, first_line
from ilora_core.sweep.compute import Job, compute

__all__ = ["require_ray", "spread", "work"]


def require_ray() -> Any:
    """The module. Raises MissingDependency that says how to install it."""
    # Under `uv run` Ray would copy the project to its workers and install it anew; the packages are there already.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(
            "--on ray needs Ray, which is not installed here: pip install 'ilora[ray]', or leave --on out."
        ) from error
    return ray


def spread(jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
    """Every job as it ends, with "" or the message of its error. Closing it asks those that run to stop."""
    ray = require_ray()
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    running: dict[Any, Job] = {}
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(num_cpus=1, max_retries=0)(work)
        environment = {k: v for k, v in os.environ.items() if k.startswith(("ILORA_", "HF_"))}
        for job in jobs:
            needed = 0 if job.cell.config.runtime.device == "cpu" else gpus
            running[task.options(num_gpus=needed).remote(job, environment, sys.path)] = job
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done)
            try:
                yield job, ray.get(done)
            except ray.exceptions.RayError as error:  # the worker died: nobody else can say so
                yield job, job.store.fail(job.cell, RuntimeError(f"its worker was lost: {first_line(error)}"))
    finally:
        for task in running:
            ray.cancel(task)
        if ours:
            ray.shutdown()


def work(job: Job, environment: Mapping[str, str], path: Sequence[str]) -> str:
    """What a worker does: "" or the message of the error, which is noted in the folder too."""
    os.environ.update(environment)
    sys.path += [entry for entry in path if entry not in sys.path]
    from ilora_core.plugins import load_plugins

    try:
        for _ in compute(job, load_plugins()):
            pass
    except Exception as error:
        return job.store.fail(job.cell, error)
    return ""
