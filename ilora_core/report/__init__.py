"""Reports: one self-contained `report.html` per fit or evaluation, and captioned preview grids.

    write_report("report.html", Report("Normals from 250 rooms", (grid, curves, evaluation_table(methods), ...)))
    grid_png("preview.png", rows, ("input", "prediction", "target"))

Data in (`parts`), HTML out (`write`, `template report.html.j2`); `tables` makes tables of evaluations, `curves` draws
charts as SVG, `pictures` embeds pictures.
"""

from ilora_core.report.parts import (
    Cell,
    Curves,
    Facts,
    Grid,
    GridRow,
    Panel,
    Picture,
    Provenance,
    Report,
    Section,
    Series,
    Table,
    Text,
    View,
    Views,
)
from ilora_core.report.pictures import grid_png
from ilora_core.report.tables import comparison_table, evaluation_table, licence_table, protocols_table
from ilora_core.report.write import render_report, versions, write_report

__all__ = [
    "Cell",
    "Curves",
    "Facts",
    "Grid",
    "GridRow",
    "Panel",
    "Picture",
    "Provenance",
    "Report",
    "Section",
    "Series",
    "Table",
    "Text",
    "View",
    "Views",
    "comparison_table",
    "evaluation_table",
    "grid_png",
    "licence_table",
    "protocols_table",
    "render_report",
    "versions",
    "write_report",
]
