"""The heart: a frozen generator, a tiny adapter, maps to learn, and one small trainer.

    min_θ  E over (codes, map)  d( G_θ(codes), picture(map) )

`fit` yields what happens: Prepared while pictures are encoded, Step after each optimiser step, Validated at each validation,
Fitted when an intrinsic is done. Closing the iterator between two events saves a resume point and stops cleanly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from accelerate import Accelerator

from ilora_core.attaching import attach, check_adapter
from ilora_core.config import FitConfig
from ilora_core.data import Prepared, Task, open_source, prepare, split_keys
from ilora_core.plugins import PluginHost, load_plugins
from ilora_core.protocols import Adapter, Generator
from ilora_core.run import Fitted, Progress, Run
from ilora_core.runtime import make_accelerator, place, prepare_network
from ilora_core.trainer import Step, Trainer
from ilora_core.validation import Validated, validate

__all__ = ["Event", "Fitted", "Prepared", "Step", "Validated", "fit"]

Event = Prepared | Step | Validated | Fitted


def fit(config: FitConfig, out: Path | str, *, resume: bool = False, host: PluginHost | None = None) -> Iterator[Event]:
    """Fit one adapter per intrinsic of `config` into the folder `out`, one after the other, on shared caches.

    resume continues what a stopped run left in `out`. Raises an IloraError that says what, where and what to do.
    """
    host = host or load_plugins()
    check_adapter(config, host)
    accelerator = make_accelerator(config.runtime)
    run = Run.open(Path(out), config, resume=resume, main=accelerator.is_main_process)
    generator: Generator = host.make("generators", config.generator, **config.settings.get("generator", {}))
    source = yield from open_source(config, generator, host, accelerator.device)
    held_out = split_keys(source.keys, config.validation, seed=config.train.seed)
    place(generator, config.runtime, accelerator)
    tasks = yield from prepare(source, generator, config, held_out)
    run.describe(generator, source, host, held_out)
    if accelerator.is_main_process:
        run.save_config()
    for task in tasks:
        if not run.finished(task.intrinsic):
            yield from _fit_one(task, generator, config, run, host, accelerator)


def _fit_one(
    task: Task, generator: Generator, config: FitConfig, run: Run, host: PluginHost, accelerator: Accelerator
) -> Iterator[Event]:
    settings = {"seed": config.train.seed, "name": task.intrinsic.name, **config.settings.get("adapter", {})}
    targets = settings.pop("targets", None) or generator.targets
    adapter: Adapter = host.make("adapters", config.adapter, **settings)
    attach(adapter, generator, task.intrinsic, targets)
    prepare_network(generator, config.runtime)
    trainer = Trainer(generator, adapter, task.intrinsic, task.train, config.train, accelerator)
    with closing(run.start(task, adapter, trainer, accelerator)) as progress:
        generator.park()
        if progress.due:  # the run was stopped between this step and its validation
            yield _validated(task, generator, progress, trainer.step)
        for step in trainer:
            progress.log(step)
            yield step
            if progress.due:
                yield _validated(task, generator, progress, step.number)
        yield progress.finish(generator)


def _validated(task: Task, generator: Generator, progress: Progress, step: int) -> Validated:
    validated = validate(generator, task, step)
    progress.keep(validated)
    generator.park()
    return validated
