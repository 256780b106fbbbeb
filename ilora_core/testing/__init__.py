"""The conformance kit: what every plugin must hold to, as plain functions.

    from ilora_core.testing import parametrize_with_checks

    @parametrize_with_checks("my-plugin")
    def test_conforms(case):
        case.run()

or, without pytest, `ilora check-plugin my-plugin`. The checks themselves are in `ilora_core.testing.checks`.
"""

from ilora_core.testing.cases import Case, CheckFailed, Outcome, Skipped, Subject, find_cases, run_case
from ilora_core.testing.pytest_glue import parametrize_with_checks

__all__ = [
    "Case",
    "CheckFailed",
    "Outcome",
    "Skipped",
    "Subject",
    "find_cases",
    "parametrize_with_checks",
    "run_case",
]
