"""A point cloud and a relit picture of predicted maps, as one HTML document without any request.

    page = scene_html(picture=picture, depth=depth, depth_kind="metric", normals=normals)
    frame = viewer_frame(page)

`geometry` unprojects, `agree` compares normals with depth, `encode` packs tensors, `document` assembles the page from
`page/` (ours) and `three/` (three.js, MIT).
"""

from ilora_core.viewer.agree import Agreement, agreement
from ilora_core.viewer.document import scene_html, scene_page, viewer_frame
from ilora_core.viewer.encode import scene_data

__all__ = ["Agreement", "agreement", "scene_data", "scene_html", "scene_page", "viewer_frame"]
