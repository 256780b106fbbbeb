"""Ray casting against closed forms: one ball, one cylinder, one box, one empty room."""

import numpy as np
import pytest
import torch

from ilora_rooms.parts import BOX, CYLINDER, SPHERE, Part, SceneSpec
from ilora_rooms.trace import cast, clearance, occluded, pack_solids, surface

ROOM = torch.tensor([[4.0, 3.0, 6.0]])
ORIGIN = torch.tensor([[[0.0], [1.0], [0.0]]])


def _solids(shape: int, centre: tuple[float, float, float], half: tuple[float, float, float]):
    spec = SceneSpec(room=np.array([4.0, 3.0, 6.0]))
    spec.add(Part(shape, (0, 0, 0), half), np.array(centre), np.eye(3), 7)
    return pack_solids([spec], torch.device("cpu"))


@pytest.mark.parametrize("shape", [BOX, CYLINDER, SPHERE])
def test_a_solid_ahead_is_hit_at_its_front(shape: int) -> None:
    solids = _solids(shape, (0, 1, 2), (0.5, 0.5, 0.5))
    ray = torch.tensor([[[0.0], [0.0], [2.0]]])  # not unit: t counts in ray lengths
    hit = cast(solids, ROOM, ORIGIN, ray)
    assert hit.t.item() == pytest.approx(0.75)
    assert hit.solid.item() == 0
    normal, _, _, material = surface(solids, ROOM, torch.zeros(1, 6, dtype=torch.long), hit, ORIGIN + hit.t * ray)
    assert normal.flatten().tolist() == pytest.approx([0, 0, -1], abs=1e-6)
    assert material.item() == 7
    assert occluded(solids, ORIGIN, ray).item()
    assert not occluded(solids, ORIGIN, ray * 0.7).item()


def test_the_shell_is_hit_from_inside() -> None:
    rays = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]]).T[None]
    hit = cast([], ROOM, ORIGIN, rays)
    assert hit.t[0].tolist() == pytest.approx([2, 2, 1, 2, 3, 3])
    assert hit.face[0].tolist() == [0, 1, 2, 3, 4, 5]
    normal, *_ = surface([], ROOM, torch.zeros(1, 6, dtype=torch.long), hit, ORIGIN + hit.t[:, None] * rays)
    assert torch.equal(normal, -rays)


@pytest.mark.parametrize(("shape", "expected"), [(BOX, 0.7), (SPHERE, 0.7), (CYLINDER, 0.7)])
def test_clearance_is_the_distance_to_the_nearest_surface(shape: int, expected: float) -> None:
    solids = _solids(shape, (0, 1, 1), (0.3, 0.3, 0.3))
    assert clearance(solids, ROOM, ORIGIN).item() == pytest.approx(expected, abs=1e-5)
    assert clearance([], ROOM, ORIGIN).item() == pytest.approx(1.0)
