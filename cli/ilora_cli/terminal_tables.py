"""A report's table on the terminal: the same labels, decimals and marks."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from ilora_core.report import Cell
    from ilora_core.report import Table as ReportTable

__all__ = ["fitting_tables", "rich_table"]


def rich_table(table: ReportTable) -> Table:
    """The table as rich prints it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=table.caption or table.title, title_justify="left", title_style="bold", box=box.SIMPLE)
    if table.note:
        shown.caption, shown.caption_justify = Text(f"{table.note}\n", style="dim"), "left"
    for index, name in enumerate(_header(table)):
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


def fitting_tables(table: ReportTable, width: int) -> list[Table]:
    """A table with groups as several of at most `width` columns of text, a group never cut; its words stand before each."""
    ends = list(accumulate(span for _, span in table.groups))
    spans = [(start, end) for start, end in zip([0, *ends], ends, strict=False) if end > table.left]
    parts: list[list[tuple[int, int]]] = []
    for span in spans:
        if parts and _width(_cut(table, [*parts[-1], span])) <= width:
            parts[-1].append(span)
        else:
            parts.append([span])
    return [rich_table(_cut(table, part)) for part in parts]


def _cut(table: ReportTable, spans: list[tuple[int, int]]) -> ReportTable:
    """The table with its words and these columns of figures."""
    chosen = [*range(table.left), *(i for start, end in spans for i in range(start, end))]
    names = dict(zip(accumulate((span for _, span in table.groups), initial=0), table.groups, strict=False))
    groups = [*table.groups[: table.left], *(names[start] for start, _ in spans)]
    rows = [[row[i] for i in chosen] for row in table.rows]
    return replace(table, header=[table.header[i] for i in chosen], rows=rows, groups=groups)


def _header(table: ReportTable) -> list[str]:
    over = [word for name, span in table.groups for word in (name, *[""] * (span - 1))]
    return [f"{word}\n{name}" for word, name in zip(over, table.header, strict=True)] if over else list(table.header)


def _width(table: ReportTable) -> int:
    """Columns of text that rich needs to wrap nothing: two of padding and one between columns, one at each end."""
    columns = zip(_header(table), *table.rows, strict=True)
    return 1 + sum(3 + max(len(line) for cell in column for line in _plain(cell).split("\n")) for column in columns)


def _plain(cell: Cell | str) -> str:
    return cell if isinstance(cell, str) else f"{cell.text}  [{cell.detail}]" if cell.detail else cell.text
