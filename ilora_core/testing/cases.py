"""Which checks apply to a plugin, and how one of them is run.

A plugin may declare checks that it is known to fail, each with its reason, in its package:

    ILORA_KNOWN_FAILURES = {"my-gan:check_masked_pixels_do_not_matter": "the loss has no mask yet"}

The key is "check" or "card:check". A declared failure that passes is itself a failure: the declaration has to go.
"""

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ilora_core.cards import Card
from ilora_core.errors import ConfigError, PluginError, UnknownName
from ilora_core.factories import call_factory
from ilora_core.plugins import KINDS, Plugin, load_plugins

__all__ = ["Case", "CheckFailed", "Outcome", "Skipped", "Subject", "find_cases", "require", "run_case", "skip"]


class CheckFailed(AssertionError):
    """What a check found wrong."""


class Skipped(Exception):
    """A check that does not apply, with the reason."""


@dataclass(frozen=True)
class Subject:
    """What a check looks at: one card, or the plugin's package as a whole (card None, kind "plugin").

    build: makes the miniature in place of the card's own; for tests.
    """

    kind: str
    plugin: str
    module: str
    card: Card | None = None
    build: Callable[[], Any] | None = None

    @property
    def name(self) -> str:
        return self.card.name if self.card else self.plugin

    def make(self) -> Any:
        """A fresh miniature."""
        if self.build is not None:
            return self.build()
        if self.card is None:
            raise ConfigError(f"{self.plugin} is a plugin and has no miniature of its own.")
        return call_factory(self.card.tiny, {}, what=f"the miniature of {self.name!r}", plugin=self.plugin)


@dataclass(frozen=True)
class Case:
    """One check on one subject."""

    subject: Subject
    check: Callable[[Subject], None]
    known_failure: str = ""

    @property
    def id(self) -> str:
        return f"{self.subject.kind}:{self.subject.name}:{self.check.__name__}"

    def run(self) -> None:
        """Raises CheckFailed (or whatever the plugin raised), or Skipped where the check does not apply."""
        try:
            self.check(self.subject)
        except Skipped:
            raise
        except Exception as error:
            if self.known_failure:
                raise Skipped(f"known failure: {self.known_failure}") from error
            raise
        if self.known_failure:
            raise CheckFailed(f"it passes, but is declared as a known failure: {self.known_failure!r}. Remove that.")


@dataclass(frozen=True)
class Outcome:
    """What became of a case. status: "passed", "failed" or "skipped"."""

    case: Case
    status: str
    reason: str
    seconds: float


def require(condition: object, message: str) -> None:
    """Raise CheckFailed unless the condition holds. Not `assert`: a check must also check under `python -O`."""
    if not condition:
        raise CheckFailed(message)


def skip(reason: str) -> None:
    """Leave a check that does not apply."""
    raise Skipped(reason)


def find_cases(plugin: str) -> list[Case]:
    """Every case of an installed plugin. Raises PluginError with the reason when it is broken.

    Cards of one kind that share a miniature share its checks: they run on the first of them.
    """
    from ilora_core.testing.checks import checks_for

    found = _loaded(plugin)
    module = found.module.partition(":")[0]
    known = _known_failures(module)
    pairs: list[tuple[Subject, Callable[[Subject], None]]] = []
    pairs += [(Subject("plugin", plugin, module), check) for check in checks_for("plugin")]
    seen: set[tuple[str, str]] = set()
    for kind in KINDS:
        for card in found.cards.get(kind, ()):
            subject = Subject(kind[:-1], plugin, module, card)
            pairs += [(subject, check) for check in checks_for("card")]
            if (kind, card.tiny) not in seen:  # cards that share a miniature have their data apart, not their behaviour
                pairs += [(subject, check) for check in checks_for(subject.kind)]
            seen.add((kind, card.tiny))
    cases = [Case(s, c, known.get(f"{s.name}:{c.__name__}") or known.get(c.__name__, "")) for s, c in pairs]
    stale = set(known) - {c.check.__name__ for c in cases} - {f"{c.subject.name}:{c.check.__name__}" for c in cases}
    if stale:
        raise PluginError(f"plugin {plugin}: ILORA_KNOWN_FAILURES names no check: {', '.join(sorted(stale))}.")
    return cases


def run_case(case: Case) -> Outcome:
    """Run a case and say what became of it; nothing escapes but an interrupt."""
    started = time.perf_counter()
    try:
        case.run()
        status, reason = "passed", ""
    except Skipped as skipped:
        status, reason = "skipped", str(skipped)
    except CheckFailed as failed:
        status, reason = "failed", str(failed)
    except Exception as error:
        status, reason = "failed", f"{type(error).__name__}: {error}"
    return Outcome(case, status, reason, time.perf_counter() - started)


def _loaded(plugin: str) -> Plugin:
    host = load_plugins()
    for found in host.plugins:
        if found.name == plugin:
            reasons = [f"{b.stage}: {b.reason}" for b in host.broken if b.plugin == plugin]
            if reasons:
                raise PluginError(f"plugin {plugin} is broken: {'; '.join(reasons)}.")
            return found
    for broken in host.broken:
        if broken.plugin == plugin:
            raise PluginError(f"plugin {plugin} is broken at {broken.stage}: {broken.reason}.")
    names = ", ".join(found.name for found in host.plugins)
    raise UnknownName(f"no plugin called {plugin!r} is installed; installed are {names}.")


def _known_failures(module: str) -> Mapping[str, str]:
    known = getattr(importlib.import_module(module), "ILORA_KNOWN_FAILURES", {})
    for name, reason in known.items():
        if not isinstance(reason, str) or not reason.strip():
            raise PluginError(f"{module}: the known failure {name!r} needs a reason.")
    return known
