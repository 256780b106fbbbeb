"""Which conformance checks there are, and those that hold for every kind of plugin; the others are in modules by kind.

Each is a plain function of a `Subject` that raises `CheckFailed` with what is wrong. They run on the card's miniature.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ilora_core.cards import resolve
from ilora_core.factories import options_of
from ilora_core.testing.cases import Subject, require

__all__ = [
    "check_calls_no_backward",
    "check_card_is_complete",
    "check_factory_resolves",
    "check_import_is_light",
    "check_leaves_globals_alone",
    "check_miniature_is_quick",
    "check_works_offline",
    "checks_for",
]

HEAVY = ("torch", "diffusers", "transformers", "jax", "tensorflow")
_MAX_MINIATURE_S = 3.0  # CPU seconds; the aim is one, but a loaded machine must not fail the check


def check_import_is_light(subject: Subject) -> None:
    """Importing the package that holds the cards imports no deep-learning framework."""
    with tempfile.TemporaryDirectory() as folder:
        for name in HEAVY:
            message = f"plugin imports {name} when it is imported"
            Path(folder, f"{name}.py").write_text(f"raise RuntimeError({message!r})\n")
        code = (
            f"import sys; sys.path[:0] = {[folder, *sys.path]!r}\nimport importlib\n"
            f"module = importlib.import_module({subject.module!r})\n"
            "for name in dir(module):\n"
            "    hook = getattr(module, name)\n"
            "    if name.startswith('ilora_') and callable(hook): list(hook())\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    reason = done.stderr.strip().splitlines()[-1:] or [""]
    require(
        done.returncode == 0,
        f"importing {subject.module} or listing its cards failed without torch: {reason[0]}. "
        "Move heavy imports into the modules that the cards' factories name.",
    )


def check_calls_no_backward(subject: Subject) -> None:
    """Training is the trainer's: nothing in a plugin calls `.backward(`.

    Only `pretrain*.py` may: a script that makes from scratch the weights which the plugin ships.
    """
    for path in _sources(subject.module):
        if path.name.startswith("pretrain"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "backward":
                require(False, f"{path}:{node.lineno} calls .backward(. Give a loss; the trainer differentiates it.")


def check_card_is_complete(subject: Subject) -> None:
    """A summary on one line, a licence, intrinsics for what gives maps."""
    card = subject.card
    assert card is not None
    require(card.summary.strip() and "\n" not in card.summary, f"the summary must be one line, not {card.summary!r}.")
    require(len(card.summary) <= 100, f"the summary has {len(card.summary)} characters; 100 fit a table.")
    require(card.licence.strip(), "the licence is empty. Say what the weights or data are licensed under.")
    require(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", card.name), f"{card.name!r}: use lower case, digits, dots and dashes.")
    if subject.kind == "labeler":
        require(card.intrinsics, "a labeler's card names the intrinsics it gives.")


def check_factory_resolves(subject: Subject) -> None:
    """`factory`, `tiny` and the optional ones name callables; the card's options are settings of the factory."""
    card = subject.card
    assert card is not None
    resolve(card.factory)
    required = [o.name for o in options_of(card.tiny) if o.required]
    require(not required, f"tiny must take no arguments, but {card.tiny} requires {', '.join(required)}.")
    for optional in filter(None, (card.skeleton, card.convert, card.adopts)):
        resolve(optional)
    parameters = inspect.signature(resolve(card.factory)).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [] if open_ended else sorted(set(card.options) - set(parameters))
    require(not unknown, f"{card.factory} has no setting {', '.join(unknown)}, which the card's options give.")


def check_miniature_is_quick(subject: Subject) -> None:
    """The miniature is made in about a second of CPU time (imports apart)."""
    subject.make()
    started = time.process_time()
    subject.make()
    took = time.process_time() - started
    require(took < _MAX_MINIATURE_S, f"tiny takes {took:.1f} CPU seconds; the aim is one. Make the network smaller.")


def check_works_offline(subject: Subject) -> None:
    """Making and using the miniature opens no connection."""
    from ilora_core.testing.watch import no_network

    with no_network() as attempts:
        _use(subject)
    require(not attempts, f"the miniature reaches for the network: {', '.join(attempts[:3])}. Build it from a config.")


def check_leaves_globals_alone(subject: Subject) -> None:
    """Random states, default dtype, gradient mode, threads, warning filters and environment stay as they were."""
    from ilora_core.testing.watch import differences, fresh_random_states, global_state

    _use(subject)  # what imports change, once, is not the plugin's doing
    with fresh_random_states():
        before = global_state()
        _use(subject)
        changed = differences(before, global_state())
    require(not changed, f"using the miniature changes process-wide state: {', '.join(changed)}. Restore it.")


def _sources(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    require(spec is not None and spec.origin, f"the source of {module} cannot be found.")
    origin = Path(spec.origin)  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def _use(subject: Subject) -> None:
    from ilora_core.testing.exercise import EXERCISES

    if subject.kind == "adapter":
        from ilora_core.testing.places import use_adapter

        use_adapter(subject)
    else:
        EXERCISES[subject.kind](subject.make())


_MODULES = {
    "generator": ("generator_checks", "generator_fit_checks"),
    "labeler": ("labeler_checks",),
    "adapter": ("adapter_checks",),
    "source": ("source_checks",),
    "metric": ("metric_checks",),
}


def checks_for(kind: str) -> tuple[Callable[[Subject], None], ...]:
    """The checks of a kind in the order they are run; "plugin" for the package, "card" for every card's own data."""
    if kind == "plugin":
        return check_import_is_light, check_calls_no_backward
    if kind == "card":
        return check_card_is_complete, check_factory_resolves
    modules = [importlib.import_module(f"ilora_core.testing.{name}") for name in _MODULES[kind]]
    own = [getattr(module, name) for module in modules for name in module.__all__]
    return check_miniature_is_quick, check_works_offline, check_leaves_globals_alone, *own
