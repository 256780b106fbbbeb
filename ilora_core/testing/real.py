"""Checks that need real weights, by request only (`ilora check-plugin --real`): do a labeler's axes point our way?"""

import torch

from ilora_core.factories import call_factory
from ilora_core.plugins import load_plugins
from ilora_core.testing.cases import Case, Subject
from ilora_core.testing.labeler_checks import require_axes
from ilora_core.testing.scenes import make_scenes

__all__ = ["check_real_axes", "real_cases"]


def real_cases(plugin: str) -> list[Case]:
    """One case per labeler of the plugin."""
    found = next(p for p in load_plugins().plugins if p.name == plugin)
    cards = found.cards.get("labelers", ())
    return [Case(Subject("labeler", plugin, found.module, card), check_real_axes) for card in cards]


def check_real_axes(subject: Subject) -> None:
    """On the analytic scenes at 384², every axis of the real model's maps correlates positively with the truth."""
    assert subject.card is not None
    labeler = call_factory(
        subject.card.factory, subject.card.options, what=f"labeler {subject.name!r}", plugin=subject.plugin
    )
    scenes = make_scenes(384, 384)
    with torch.no_grad():
        labels = labeler.label(scenes.pictures)
    require_axes(labeler, labels, scenes, least=0.0)
