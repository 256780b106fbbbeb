"""`ilora view`: one picture's depth and normals as a page to turn with the mouse, and a check that they belong together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, print_json
from ilora_core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from ilora_core.intrinsics import Intrinsic

__all__ = ["view"]

_KINDS = {"depth": "affine_depth", "disparity": "affine_disparity", "metric": "metric"}


def view(
    picture: Annotated[str, typer.Argument(help="The picture that the maps belong to.")],
    depth: Annotated[str, typer.Option(help="Its depth map, a file.")] = "",
    normals: Annotated[str, typer.Option(help="Its normals, a file.")] = "",
    albedo: Annotated[str, typer.Option(help="Its albedo, a file, for the relit view.")] = "",
    kind: Annotated[
        str, typer.Option(help="What the depth is: depth (relative, as `ilora predict` writes it), disparity, metric.")
    ] = "depth",
    scale: Annotated[float | None, typer.Option(help="Depth = stored number × this: 0.001 for mm.")] = None,
    frame: Annotated[str, typer.Option(help="Axes of the normals: opencv, opengl, directx")] = "opencv",
    fov: Annotated[float, typer.Option(min=1, max=170, help="Field of view of the longer side, in degrees.")] = 60.0,
    side: Annotated[int, typer.Option(min=2, max=1024, help="Pixels of the longer side that are kept.")] = 256,
    out: Annotated[str, typer.Option("--out", "-o", help="The page to write.")] = "scene.html",
    json: Annotated[
        bool, typer.Option("--json", help="Machine-readable: the page, and what normals say of depth.")
    ] = False,
) -> None:
    """Write one HTML page with a point cloud, needles for normals, and the picture in a light of your own.

    The page needs no network. Where there are depth and normals, it says whether they agree, or which axis looks flipped.
    """
    if kind not in _KINDS:
        raise ConfigError(f"--kind is one of {', '.join(_KINDS)}, not {kind!r}.")
    if not depth and not normals:
        raise ConfigError("give --depth FILE, --normals FILE or both: without them there is nothing to turn.")
    from dataclasses import replace

    from ilora_core.files import write_text
    from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS
    from ilora_core.maps_io import read_picture
    from ilora_core.viewer import scene_data, scene_page

    data = scene_data(
        picture=read_picture(picture),
        depth=_read(depth, replace(DEPTH, kind=_KINDS[kind]), scale=scale) if depth else None,
        depth_kind=_KINDS[kind],
        normals=_read(normals, NORMALS, frame=frame) if normals else None,
        albedo=_read(albedo, ALBEDO).nan_to_num() if albedo else None,
        title=Path(picture).name,
        side=side,
        fov_deg=fov,
    )
    write_text(out, scene_page(data))
    _tell(out, data.get("agreement"), json=json)


def _tell(page: str, found: dict[str, Any] | None, *, json: bool) -> None:
    if json:
        print_json({"page": page, "agreement": found})
        return
    said = console(stderr=True)
    if found:
        cosine = found["mean_cosine"]
        told = found["sentence"] + ("" if cosine is None else f" Mean cosine {cosine:.2f}.")
        said.print(told, style="red" if found["suspect"] else None, markup=False)
    said.print(f"page: {page}", markup=False)


def _read(path: str, intrinsic: Intrinsic, *, frame: str = "opencv", scale: float | None = None) -> Tensor:
    """A map with NaN where it is not valid."""
    import torch

    from ilora_core.maps_io import decode_map
    from ilora_core.pixels import read_pixels

    pixels = read_pixels(path)
    if intrinsic.kind == "metric" and pixels.top is not None and scale is None:
        raise ConfigError(f"{path} holds integers, which are no metres: give --scale (0.001 for mm), or --kind depth.")
    value, valid = decode_map(pixels, intrinsic, path, frame=frame, scale=scale)
    return torch.where(valid, value, torch.nan)
