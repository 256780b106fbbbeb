"""The conformance checks as pytest tests. pytest itself is imported only when this is used."""

from collections.abc import Callable
from typing import Any

from ilora_core.testing.cases import Case, Skipped, find_cases

__all__ = ["parametrize_with_checks"]


def parametrize_with_checks(plugin: str) -> Callable[[Callable], Any]:
    """Decorate `def test_conforms(case): case.run()`: one test per check and card of the installed plugin."""
    import pytest

    def decorate(function: Callable) -> Any:
        return pytest.mark.parametrize("case", [_Reported(case) for case in find_cases(plugin)], ids=str)(function)

    return decorate


class _Reported:
    """A case whose skips pytest understands."""

    def __init__(self, case: Case):
        self.case = case

    def __str__(self) -> str:
        return self.case.id

    def run(self) -> None:
        import pytest

        try:
            self.case.run()
        except Skipped as skipped:
            pytest.skip(str(skipped))
