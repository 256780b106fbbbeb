"""ilora's own checks on everything this plugin provides."""

from ilora_core.testing import parametrize_with_checks


@parametrize_with_checks("ilora-paradigms")
def test_conforms(case):
    case.run()
