"""The viewer in a report: one section with a button per picture."""

from __future__ import annotations

from torch import Tensor

from ilora_core.report import View, Views
from ilora_core.viewer.encode import scene_data

__all__ = ["MOST_VIEWS", "scene_view", "views_section"]

MOST_VIEWS = 4
_SIDE = 192


def scene_view(
    label: str, *, picture: Tensor, depth: Tensor, depth_kind: str, normals: Tensor, albedo: Tensor | None = None
) -> View:
    """One picture's maps for a report; arguments as in `scene_html`."""
    data = scene_data(
        picture=picture,
        depth=depth,
        depth_kind=depth_kind,
        normals=normals,
        albedo=albedo,
        title=label,
        side=_SIDE,
    )
    return View(label, picture, data)


def views_section(views: list[View], *, note: str = "") -> Views:
    """The first few as a section."""
    told = (
        "Depth as a surface with the normals as needles, and the picture relit by the normals. A button opens its view."
    )
    return Views("3-D", views[:MOST_VIEWS], " ".join(filter(None, (told, note))))
