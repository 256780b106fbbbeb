"""A fit's folder: what is written when, and how a stopped run goes on.

    OUT/run.json                      the configuration
    OUT/<intrinsic>/                  the finished artefact, once there is one
    OUT/<intrinsic>/metrics.jsonl     a line per step and per validation
    OUT/<intrinsic>/checkpoints/step_000400/    the adapter at each validation
    OUT/<intrinsic>/state.pt          the last resume point; gone when the intrinsic is done

Only the main process writes. Everything but metrics.jsonl is written whole or not at all; metrics.jsonl is cut back to the
resume point when a run goes on, so that it reads as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import pickle
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ilora_core import __version__
from ilora_core.artefact import RECORD, save_adapter, save_artefact
from ilora_core.config import FitConfig
from ilora_core.data import Task
from ilora_core.errors import ArtefactError, ConfigError, DataError
from ilora_core.files import atomic_path, read_json, write_json
from ilora_core.intrinsics import Intrinsic
from ilora_core.labelling import labeler_names
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Adapter, Generator, Source
from ilora_core.trainer import Step, Trainer
from ilora_core.validation import Validated

__all__ = ["Fitted", "Progress", "Run"]

_REPORTED = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")


@dataclass(frozen=True)
class Fitted:
    """One intrinsic is done: its artefact's folder, and the validation of the adapter in it (None without one)."""

    intrinsic: str
    folder: Path
    best: Validated | None


class Run:
    """The folder of one fit."""

    def __init__(self, folder: Path, config: FitConfig, *, resume: bool):
        self.folder, self.config, self.resume = folder, config, resume
        self.record: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: Path, config: FitConfig, *, resume: bool, main: bool = True) -> Run:
        """Check the folder before anything is loaded: empty for a new run, this very run's for a resumed one."""
        record = folder / RECORD
        if main and record.is_file():
            if not resume:
                raise DataError(f"{folder} holds a run already. Continue it with --resume, or choose another --out.")
            _check_same(read_json(record).get("config", {}), config, record)
        elif main and folder.is_dir() and any(folder.iterdir()) and not resume:
            raise DataError(f"{folder} is not empty. Choose another --out.")
        return cls(folder, config, resume=resume)

    def finished(self, intrinsic: Intrinsic) -> bool:
        """Whether a resumed run has this artefact already."""
        return self.resume and (self.folder / intrinsic.name / RECORD).is_file()

    def describe(self, generator: Generator, source: Source, host: PluginHost, held_out: Collection[str]) -> None:
        """Collect the provenance that goes into every artefact."""
        config = self.config
        plugin, card = host.find("generators", config.generator)
        licences = {f"generator {card.name}": card.licence}
        named = [("labelers", name) for name in labeler_names(config.labeler)]
        for kind, name in [*named, ("sources", config.source)]:
            if name:
                licences[f"{kind[:-1]} {name}"] = host.card(kind, name).licence
        licences |= {"pairs": "yours"} if config.pairs else {}
        keys = "\n".join(sorted(source.keys))
        self.record = {
            "config": config.to_json(),
            "generator": {
                "name": card.name,
                "plugin": plugin,
                "settings": dict(config.settings.get("generator", {})),
                "provenance": dict(getattr(generator, "provenance", {})),
            },
            **({"labels": dict(getattr(source, "provenance", {}))} if config.labeler else {}),
            "adapter": config.adapter,
            "data": {
                "train": len(source.keys) - len(held_out),
                "validation": len(held_out),
                "keys_sha256": hashlib.sha256(keys.encode()).hexdigest(),
            },
            "licences": licences,
            "versions": {"ilora": __version__, **_versions()},
        }

    def save_config(self) -> None:
        """Write OUT/run.json: from here on the folder is this run's."""
        write_json(self.folder / RECORD, self.record)

    def start(self, task: Task, adapter: Adapter, trainer: Trainer, accelerator: Accelerator) -> Progress:
        """Begin, or take up, one intrinsic."""
        return Progress(self, task.intrinsic, adapter, trainer, accelerator)


class Progress:
    """One intrinsic's files while it is trained."""

    def __init__(self, run: Run, intrinsic: Intrinsic, adapter: Adapter, trainer: Trainer, accelerator: Accelerator):
        self.run, self.intrinsic, self.adapter, self.trainer = run, intrinsic, adapter, trainer
        self.accelerator, self.main = accelerator, accelerator.is_main_process
        self.folder = run.folder / intrinsic.name
        self.best: Validated | None = None
        self._saved_at = self._kept_at = 0
        self._state = self.folder / "state.pt"
        if run.resume and self._state.is_file():
            self._load()
        accelerator.wait_for_everyone()
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._cut_log()

    def log(self, step: Step) -> None:
        """A line in metrics.jsonl; on a GPU every tenth step, since reading the loss waits for it."""
        every = 10 if self.accelerator.device.type == "cuda" else 1
        if self.main and (step.number % every == 0 or step.number == self.trainer.config.steps):
            self._append({"step": step.number, "loss": float(step.loss), "lr": step.lr})

    @property
    def due(self) -> bool:
        """Whether the last step ends with a validation and a resume point that have not been made yet."""
        step, config = self.trainer.step, self.trainer.config
        return step > self._kept_at and (step % config.interval == 0 or step == config.steps)

    def keep(self, validated: Validated) -> None:
        """Keep the adapter, note its score, and save a resume point."""
        self._kept_at = validated.step
        if self.main:
            save_adapter(self._checkpoint(validated.step), self.adapter.state_dict(), self.adapter.config())
            if validated.beats(self.best):
                self.best = validated
            if validated.value is not None:
                self._append({"step": validated.step, validated.metric: validated.value})
            self._save()
        self.accelerator.wait_for_everyone()

    def finish(self, generator: Generator) -> Fitted:
        """The artefact, from the best adapter."""
        best = self.best
        if self.main:
            state = self.adapter.state_dict()
            if best is not None:
                from safetensors.torch import load_file

                state = load_file(self._checkpoint(best.step) / "adapter_model.safetensors")
            record = {
                **self.run.record,
                "intrinsic": self.intrinsic.predicted().to_json(),
                "best": {"step": best.step, "metric": best.metric, "value": _plain(best.value)} if best else None,
                "steps": self.trainer.step,
            }
            save_artefact(self.folder, state, self.adapter.config(), record, generator)
            self._state.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return Fitted(self.intrinsic.name, self.folder, best)

    def close(self) -> None:
        """Save a resume point if training stopped between two of them."""
        unfinished = self._saved_at < self.trainer.step < self.trainer.config.steps
        if self.main and unfinished and not self.trainer.broken:
            self._save()

    def _save(self) -> None:
        best = self.best
        notes = None if best is None else [best.step, best.metric, best.value, best.higher_is_better]
        with atomic_path(self._state) as path, open(path, "wb") as file:
            torch.save({"trainer": self.trainer.state_dict(), "best": notes, "kept_at": self._kept_at}, file)
            file.flush()
        self._saved_at = self.trainer.step

    def _load(self) -> None:
        try:
            state = torch.load(self._state, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ArtefactError(
                f"{self._state} is damaged ({error}). Delete it to train {self.intrinsic.name} again from the start."
            ) from error
        self.trainer.load_state_dict(state["trainer"])
        self._saved_at, self._kept_at = self.trainer.step, state["kept_at"]
        if state["best"]:
            step, metric, value, higher = state["best"]
            self.best = Validated(self.intrinsic.name, step, metric, value, higher)

    def _checkpoint(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step_{step:06d}"

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({key: _plain(value) for key, value in line.items()}) + "\n")
        except OSError as error:
            raise DataError(
                f"cannot write {self.folder / 'metrics.jsonl'}: {error.strerror}. Free some space; "
                "`--resume` goes on from the last resume point."
            ) from error

    def _cut_log(self) -> None:
        """Drop the lines after the resume point (the last of them may be half-written)."""
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if entry["step"] > self.trainer.step:
                break
            kept.append(line + "\n")
        with atomic_path(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def _check_same(stored: dict[str, Any], config: FitConfig, record: Path) -> None:
    """A resumed run must be the stored one; only where it runs (the runtime group) may change."""
    given = config.to_json()
    for data in (stored, given):
        data.get("settings", {}).pop("runtime", None)
    given = json.loads(json.dumps(given))
    for key in sorted({*stored, *given}):
        if stored.get(key) != given.get(key):
            raise ConfigError(
                f"{record} was made with {key} = {stored.get(key)!r}, but you ask for {given.get(key)!r}. "
                "Resume with the same settings, or choose another --out."
            )


def _versions() -> dict[str, str]:
    found = {}
    for name in _REPORTED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and value != value else value
