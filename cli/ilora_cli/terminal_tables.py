"""A report's table on the terminal: the same labels, decimals and marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from ilora_core.report import Table as ReportTable

__all__ = ["rich_table"]


def rich_table(table: ReportTable) -> Table:
    """The table as rich prints it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=table.caption or table.title, title_justify="left", title_style="bold", box=box.SIMPLE)
    for index, name in enumerate(table.header):
        shown.add_column(Text(name), justify="left" if index < table.left else "right")
    for row in table.rows:
        cells = []
        for cell in row:
            if isinstance(cell, str):
                cells.append(Text(cell))
                continue
            text = Text(cell.text, style="bold green" if cell.best else "")
            cells.append(text.append(f"  [{cell.detail}]", style="dim not bold") if cell.detail else text)
        shown.add_row(*cells)
    return shown
