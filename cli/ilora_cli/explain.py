"""What any error is called in one message, and the exit code that goes with it."""

from __future__ import annotations

from ilora_core.errors import IloraError, first_line
from ilora_core.factories import missing_dependency

__all__ = ["explain", "ran_out_of_memory"]

_LESS = {
    "predict": "Draw less at once (--batch 1, --one-by-one, --process native).",
    "app": "Choose fewer maps, the process native, or a smaller picture.",
}
_LESS_TRAINING = (
    "Try a smaller batch (--set train.batch=1) or checkpointing (--set runtime.checkpointing=true); "
    "`ilora plan` says what fits."
)


def explain(error: Exception, command: str) -> tuple[str, int]:
    """What to tell the user of `ilora COMMAND`, and the exit code."""
    if isinstance(error, IloraError):
        return str(error), error.exit_code
    if isinstance(error, ImportError):
        return str(missing_dependency(error, what=f"`ilora {command}`")), 1
    if ran_out_of_memory(error):
        return f"the device ran out of memory: {first_line(error)}. {_LESS.get(command, _LESS_TRAINING)}", 1
    hint = "This is a bug in ilora or in a plugin; ILORA_DEBUG=1 shows where."
    return f"{type(error).__name__}: {error}. {hint}", 1


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left. torch is not imported for it."""
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return on_cpu or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
