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
    if table.note:
        shown.caption, shown.caption_justify = Text(table.note, style="dim"), "left"
    over = [word for name, span in table.groups for word in (name, *[""] * (span - 1))]
    header = [f"{word}\n{name}" for word, name in zip(over, table.header, strict=True)] if over else table.header
    for index, name in enumerate(header):
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
