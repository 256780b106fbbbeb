"""Every error that ilora raises on purpose. A message says what is wrong, where, and what to do next."""

__all__ = [
    "ArtefactError",
    "CannotEncode",
    "ConfigError",
    "DataError",
    "HubError",
    "IloraError",
    "MissingDependency",
    "NonFiniteLoss",
    "PluginError",
    "UnknownName",
    "WeightsError",
    "first_line",
]


class IloraError(Exception):
    """Root of the tree. The command line prints the message without a traceback and exits with `exit_code`."""

    exit_code = 1


class ConfigError(IloraError):
    """A setting that does not exist or does not make sense."""

    exit_code = 2


class UnknownName(ConfigError):
    """A plugin, preset, intrinsic or metric that nobody provides."""


class DataError(IloraError):
    """A file or folder that cannot be used as given."""


class ArtefactError(IloraError):
    """An adapter folder that is incomplete, damaged or made for another generator."""


class WeightsError(IloraError):
    """Model weights that cannot be found, fetched or trusted."""


class HubError(IloraError):
    """The Hugging Face Hub refuses, or does not answer. unreachable: there is no way to it, so its cache may do."""

    def __init__(self, message: str, *, unreachable: bool = False):
        self.unreachable = unreachable
        super().__init__(message)


class PluginError(IloraError):
    """A plugin that breaks its protocol or cannot be loaded."""


class MissingDependency(IloraError):
    """A package that the request needs and that is not installed."""


class CannotEncode(IloraError):
    """The generator has no way from a picture to its codes (a GAN without inversion)."""


class NonFiniteLoss(IloraError):
    """Training met a loss that is not a finite number. `keys` names the pictures that caused it."""

    def __init__(self, step: int, keys: tuple[str, ...]):
        self.step, self.keys = step, keys
        super().__init__(
            f"the loss is not finite at step {step} for {', '.join(keys)}. "
            "Check those label maps (`ilora doctor`), or lower the learning rate (--set train.lr=...)."
        )


def first_line(error: BaseException) -> str:
    """The first line of another library's message, 200 characters of it and no full stop, for use in one of ours.

    The name of the error's class where it says nothing.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
