"""The viewer's HTML: one document with three.js, our scripts and the data in it. No request, no font, no storage."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ilora_core.viewer.encode import scene_data
from ilora_core.viewer.geometry import FOV_DEG

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCENE_SLOT", "page_html", "scene_html", "scene_json", "scene_page", "viewer_frame"]

SCENE_SLOT = "@@SCENE@@"
"""Where `page_html` has room for one scene's JSON."""

_SCRIPTS = ("data.js", "cloud.js", "relit.js", "overlays.js", "main.js")


def scene_html(
    *,
    picture: Tensor,
    depth: Tensor | None,
    depth_kind: str,
    normals: Tensor | None,
    albedo: Tensor | None = None,
    title: str = "",
    side: int = 256,
    fov_deg: float = FOV_DEG,
) -> str:
    """A self-contained HTML document that shows one picture's maps in three dimensions and relit.

    picture     (3,H,W) in [0,1], sRGB-encoded
    depth       (1,H,W) of the kind `depth_kind`; NaN is not valid
    normals     (3,H,W) in the OpenCV camera frame; NaN and (0,0,0) are not valid
    albedo      (3,H,W) linear, for the relit view, which takes the picture for it otherwise
    side        pixels of the longer side that are kept
    fov_deg     field of view of the longer side that the page starts with

    Raises DataError for maps that do not fit the picture, or when there is neither depth nor normals.
    """
    data = scene_data(
        picture=picture,
        depth=depth,
        depth_kind=depth_kind,
        normals=normals,
        albedo=albedo,
        title=title,
        side=side,
        fov_deg=fov_deg,
    )
    return scene_page(data)


def scene_page(data: Mapping[str, Any]) -> str:
    """The document for what `scene_data` gave."""
    return page_html().replace(SCENE_SLOT, scene_json(data), 1)


def viewer_frame(page: str, *, height: int = 640, title: str = "3-D view") -> str:
    """The document as an <iframe> that may run scripts and nothing else."""
    return (
        f'<iframe sandbox="allow-scripts" title="{html.escape(title)}" loading="lazy" srcdoc="{html.escape(page)}" '
        f'style="width:100%;height:{height:d}px;border:0"></iframe>'
    )


def scene_json(data: Mapping[str, Any]) -> str:
    """`scene_data` as JSON that may stand inside a script element."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


@cache
def page_html() -> str:
    """The document with SCENE_SLOT in place of a scene."""
    page = _read("page/page.html")
    page = page.replace("@@STYLE@@", _read("page/viewer.css"))
    page = page.replace("@@THREE@@", _script(_read("three/three.bundle.min.js")))
    return page.replace("@@VIEWER@@", "\n".join(_script(_read(f"page/{name}")) for name in _SCRIPTS))


def _script(text: str) -> str:
    """JavaScript that cannot end its script element early."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _read(name: str) -> str:
    return (resources.files("ilora_core.viewer") / name).read_text(encoding="utf-8")
