"""ilora's own checks on everything this plugin provides, and on the variants whose miniature no card names."""

from functools import partial

import pytest

from ilora_core.testing import parametrize_with_checks
from ilora_core.testing.cases import Subject
from ilora_core.testing.checks import checks_for
from ilora_marigold import depth_anything, factories

VARIANTS = {
    "appearance": partial(factories.tiny_iid, variant="appearance"),
    "metric": partial(depth_anything.tiny, kind="metric-indoor"),
}


@parametrize_with_checks("ilora-marigold")
def test_conforms(case):
    case.run()


@pytest.mark.parametrize("check", checks_for("labeler"), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_other_variants_conform(name, check):
    check(Subject("labeler", "ilora-marigold", "ilora_marigold", build=VARIANTS[name]))
