"""Calls a factory named by a card, and says in plain words what was wrong with a setting or a missing package."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ilora_core.cards import resolve
from ilora_core.errors import ConfigError, MissingDependency, PluginError

__all__ = ["Option", "call_factory", "check_settings", "missing_dependency", "options_of"]

# Packages whose name on an index differs from the module's.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "OpenEXR": "openexr",
}

_PLAIN: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}


@dataclass(frozen=True)
class Option:
    """One setting of a factory, as `ilora show` prints it."""

    name: str
    default: object
    required: bool
    annotation: str


def call_factory(path: str, settings: Mapping[str, Any], *, what: str, plugin: str) -> Any:
    """`path(**settings)`. Raises ConfigError for a wrong setting and MissingDependency for a package that is absent.

    what: names the thing in messages (`generator 'sd15'`); plugin: who provides it.
    """
    factory = _resolve(path, what=what, plugin=plugin)
    _check_settings(factory, settings, what=what)
    try:
        return factory(**settings)
    except ImportError as error:
        raise missing_dependency(error, what=what, plugin=plugin) from error


def check_settings(path: str, settings: Mapping[str, Any], *, what: str, plugin: str) -> None:
    """Raises ConfigError for settings that `path` does not take, or of another type than it states; calls nothing."""
    _check_settings(_resolve(path, what=what, plugin=plugin), settings, what=what)
    for option in options_of(path, what=what, plugin=plugin):
        kinds = [_PLAIN.get(kind.strip()) for kind in option.annotation.split("|")]
        if option.name not in settings or None in kinds:
            continue
        value = settings[option.name]
        allowed = tuple(kind for kind in kinds if kind) + ((int,) if float in kinds else ())
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise ConfigError(f"{what}: {option.name} is {option.annotation}, not {value!r}.")


def options_of(path: str, *, what: str = "it", plugin: str = "") -> list[Option]:
    """The settings a factory takes, in its own order."""
    return [
        Option(
            parameter.name,
            None if parameter.default is parameter.empty else parameter.default,
            parameter.default is parameter.empty,
            ""
            if parameter.annotation is parameter.empty
            else inspect.formatannotation(parameter.annotation).strip("'"),
        )
        for parameter in _parameters(_resolve(path, what=what, plugin=plugin))
        if parameter.kind is not parameter.VAR_KEYWORD
    ]


def _written(annotation: object) -> str:
    return "" if annotation is inspect.Parameter.empty else inspect.formatannotation(annotation).strip("'")


def missing_dependency(error: ImportError, *, what: str, plugin: str = "") -> MissingDependency | PluginError:
    """The error to raise in place of a bare ImportError."""
    module = (error.name or "").partition(".")[0]
    by = f" (plugin {plugin})" if plugin else ""
    if not isinstance(error, ModuleNotFoundError) or not module or module == plugin.replace("-", "_"):
        return PluginError(f"{what}{by} cannot be imported: {error}. Reinstall the plugin or report it to its author.")
    package = _DISTRIBUTIONS.get(module, module.replace("_", "-"))
    return MissingDependency(
        f"{what}{by} needs the package {package!r}, which is not installed here. Install it: pip install {package}"
    )


def _resolve(path: str, *, what: str, plugin: str) -> Callable:
    try:
        return resolve(path)
    except PluginError as error:
        if isinstance(error.__cause__, ImportError):
            raise missing_dependency(error.__cause__, what=what, plugin=plugin) from error
        raise


def _parameters(factory: Callable) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some callables written in C
        return [inspect.Parameter("settings", inspect.Parameter.VAR_KEYWORD)]
    hidden = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    return [parameter for parameter in parameters if parameter.kind not in hidden]


def _check_settings(factory: Callable, settings: Mapping[str, Any], *, what: str) -> None:
    parameters = _parameters(factory)
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    open_ended = len(names) < len(parameters)
    for name in () if open_ended else settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{what} has no setting {name!r}.{hint} It takes: {', '.join(names) or 'none'}.")
    for parameter in parameters:
        required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if required and parameter.name not in settings:
            raise ConfigError(f"{what} needs the setting {parameter.name!r}; it takes: {', '.join(names)}.")
