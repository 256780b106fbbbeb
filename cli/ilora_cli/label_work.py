"""What `ilora label` does, here or in several processes.

Of n processes the k-th takes every n-th picture from the k-th on, for each labeler in turn, and writes shards of its own: they
share the cache's folder and nothing else, so any of them may die, and the next call may have another number of them. `spread`
starts them; or `accelerate launch` did, on one machine or on several that share the cache, and `join` takes part.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilora_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ilora_core.labelling import Labelers
    from ilora_core.labels import LabelProgress
    from ilora_core.plugins import PluginHost
    from ilora_core.protocols import Source

__all__ = ["Work", "is_main_process", "launched"]

_LOOK_S = 0.2
_PATIENCE = timedelta(days=7)  # the fastest process waits for the slowest, and labels take what they take
_told: Any = None
"""In a process that labels a share: the queue for its progress."""


def launched() -> bool:
    """Whether accelerate or torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main_process() -> bool:
    """Whether this process exports and reports."""
    return not launched() or int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Work:
    """Which pictures, which labelers, where: plain data, so that it can be handed to other processes.

    settings: the sections labeler and source of `--set`. folder: where the labels are, once `run` or `spread` is through.
    """

    labeler: str
    pictures: tuple[str, ...] = ()
    source: str = ""
    size: int = 0
    cache: Path | None = None
    batch: int = 8
    device: str = "auto"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def open_source(self, host: PluginHost) -> Source:
        """The pictures. Raises an IloraError that says what is wrong with them."""
        from ilora_core.sources import FolderSource

        settings = self.settings.get("source", {})
        if self.source:
            return host.make("sources", self.source, **({"size": self.size} if self.size else {}), **settings)
        if settings:
            raise ConfigError("--set source.… goes with --source NAME; for pictures use --size.")
        return FolderSource(self.pictures, size=self.size or None)

    def open_labelers(self, host: PluginHost) -> Labelers:
        """The labelers, with their caches."""
        from ilora_core.labelling import open_labelers

        return open_labelers(host, self.labeler, self.settings.get("labeler", {}), root=self.cache)

    def run(self, labelers: Labelers, source: Source) -> Iterator[LabelProgress]:
        """Label in this process."""
        from ilora_core.labelling import run_labelers
        from ilora_core.runtime import pick_device

        yield from run_labelers(labelers, source, batch_size=self.batch, device=pick_device(self.device))

    def join(self, labelers: Labelers, source: Source) -> Iterator[LabelProgress | Path]:
        """Label this process's share of what accelerate launched; yields its progress, then that of all, then the folder."""
        from accelerate import PartialState
        from accelerate.utils import gather_object

        from ilora_core.labelling import run_labelers, share_of

        state = PartialState(cpu=self.device == "cpu", timeout=_PATIENCE)
        share, last = share_of(source, state.process_index, state.num_processes), {}
        device = str(state.device) if self.device == "auto" else self.device
        for progress in run_labelers(labelers, share, batch_size=self.batch, device=device):
            last[progress.labeler] = progress
            yield progress
        everybody: list[dict[str, LabelProgress]] = gather_object([last])
        for name in dict.fromkeys(name for each in everybody for name in each):
            yield _together([each[name] for each in everybody if name in each], len(source))
        state.destroy_process_group()
        yield labelers.cache.folder

    def spread(self, processes: int, total: int) -> Iterator[LabelProgress | Path]:
        """Label in several processes; yields their progress added up, and last the cache's folder."""
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        told = context.Queue()
        with ProcessPoolExecutor(processes, context, _remember, (told,)) as pool:
            shares = [pool.submit(_label_share, self, number, processes) for number in range(processes)]
            yield from _shown(told, shares, total)
            try:
                results = [share.result() for share in shares]
            except BrokenProcessPool as error:
                raise DataError(
                    "a labelling process died, perhaps for lack of memory. What was finished is kept: run the same command "
                    "again, with fewer --processes or a smaller --batch."
                ) from error
        for name in results[0][1]:
            yield _together([last[name] for _, last in results], total)
        yield Path(results[0][0])


def _shown(told: Any, shares: list[Future[Any]], total: int) -> Iterator[LabelProgress]:
    """Progress while the processes work: those that are busy with the same labeler, together."""
    latest: dict[str, dict[int, LabelProgress]] = {}
    while not all(share.done() for share in shares):
        try:
            number, progress = told.get(timeout=_LOOK_S)
        except queue.Empty:
            continue
        own = latest.setdefault(progress.labeler, {})
        own[number] = progress
        yield _together(list(own.values()), total)


def _together(parts: list[LabelProgress], total: int) -> LabelProgress:
    return replace(parts[0], done=sum(p.done for p in parts), total=total, reused=sum(p.reused for p in parts))


def _remember(told: Any) -> None:
    global _told
    _told = told
    told.cancel_join_thread()  # progress that nobody reads any more must not hold the process back


def _label_share(work: Work, number: int, of: int) -> tuple[str, dict[str, LabelProgress]]:
    """In a process of its own: label one share; returns the cache's folder and the last progress by labeler."""
    import torch

    from ilora_core.labelling import share_of
    from ilora_core.plugins import load_plugins
    from ilora_core.runtime import pick_device

    device = pick_device(work.device)
    if device.type == "cuda" and device.index is None:
        work = replace(work, device=f"cuda:{number % torch.cuda.device_count()}")
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // of))
    host, last = load_plugins(), {}
    labelers = work.open_labelers(host)
    for progress in work.run(labelers, share_of(work.open_source(host), number, of)):
        last[progress.labeler] = progress
        _told.put((number, progress))
    return str(labelers.cache.folder), last
