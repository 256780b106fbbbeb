"""A study's results.json as Markdown: what report.md holds, and a chapter of docs/results.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ilora_core.report.tables import decimals_for, figure_label, number
from ilora_core.reproduce.report import best_of_each

__all__ = ["study_markdown"]

_COSTS = {"pictures": "pictures", "trained": "trained", "cpu_s": "CPU s", "peak_mib": "peak MiB"}


def study_markdown(results: Mapping[str, Any], *, level: int = 1, pictures: str = "") -> str:
    """One study. level: of its heading; pictures: the folder of its pictures as links go."""
    mark = "#" * level
    lines = [f"{mark} {results['study']}: {results['title']}", "", f"*The paper:* {results['paper']}", ""]
    lines += [f"*Here:* {results['about']} `{command_of(results)}`", ""]
    if results["claims"]:
        lines += [_counted(results["claims"]), ""]
    for part in results["parts"]:
        lines += [f"{mark}# {part['title']}", "", *_part(part), ""]
        lines += [*([part["note"], ""] if part["note"] else [])]
    for table in results["tables"]:
        lines += [f"**{table['title']}**", "", *_table(table["header"], table["rows"], table["left"]), ""]
        lines += [*([table["note"], ""] if table["note"] else [])]
    for name in results.get("pictures", []):
        lines += [f"![{results['study']}, {name.rpartition('.')[0]}]({pictures}{name})", ""]
    if results["claims"]:
        lines += ["What holds, by paired differences (first minus second, 95 % intervals over pictures and seeds):", ""]
        lines += [*_table(("claim", "verdict", "difference"), [_claim(c) for c in results["claims"]], 2), ""]
    for one in results["published"]:
        lines += [f"The paper's own numbers ({one['source']}):", "", *_table(one["header"], one["rows"], 1), ""]
        lines += [*([one["note"], ""] if one["note"] else [])]
    for note in results["footnotes"]:
        lines += [f"{note}", ""]
    return "\n".join(lines).rstrip() + "\n"


def command_of(results: Mapping[str, Any]) -> str:
    """What makes it again."""
    return f"ilora reproduce {results['study']} --world {results['world']}{' --quick' if results['quick'] else ''}"


def _part(part: Mapping[str, Any]) -> list[str]:
    rows = part["rows"]
    names = list(dict.fromkeys(key for row in rows for key in row["labels"]))
    costs = [name for name in _COSTS if any(name in row["costs"] for row in rows)]
    among = [row["test"] for row in rows]
    columns = {name: _column([row["figures"].get(name) for row in rows], among) for name in part["shown"]}
    told = ["tested on"] if len(set(among)) > 1 else []
    header = [*names, *told, *(_label(name, rows) for name in part["shown"]), *(_COSTS[name] for name in costs)]
    lines = []
    for index, row in enumerate(rows):
        labels = [*(row["labels"].get(name, "") for name in names), *(row["test"] for _ in told)]
        line = [*labels, *(column[index] for column in columns.values())]
        lines.append([*line, *(_cost(row["costs"].get(name)) for name in costs)])
    tests = ", ".join(dict.fromkeys(among))
    seeds = max((row["seeds"] for row in rows), default=0)
    over = f"mean over {seeds} seeds, intervals over pictures and seeds" if seeds > 1 else "intervals over pictures"
    caption = f"{part['intrinsic']} by `{part['protocol']}` on `{tests}`; {over}, 95 %."
    return [*_table(header, lines, len(names) + len(told)), "", caption]


def _claim(claim: Mapping[str, Any]) -> list[str]:
    compared = claim["comparison"]
    if not compared:
        return [str(claim["text"]), str(claim["verdict"]), "–"]
    values = [math.nan if compared[k] is None else compared[k] for k in ("difference", "low", "high")]
    decimals = decimals_for(values)
    signed = [f"{'+' if v >= 0 else '−'}{number(abs(v), decimals)}" for v in values]
    clear = claim["verdict"] in ("holds", "the other way round")
    verdict = f"**{claim['verdict']}**" if clear else str(claim["verdict"])
    return [str(claim["text"]), verdict, f"{signed[0]} [{signed[1]}, {signed[2]}]"]


def _counted(claims: Sequence[Mapping[str, Any]]) -> str:
    verdicts = [claim["verdict"] for claim in claims]
    counted = [f"{verdicts.count(v)} {text}" for v, text in _VERDICTS.items() if v in verdicts]
    return f"Of {len(claims)} statements tested: {', '.join(counted)}."


_VERDICTS = {
    "holds": "hold",
    "the other way round": "are the other way round",
    "undecided": "are undecided",
    "not computed": "were not computed",
}


def _column(figures: Sequence[Mapping[str, Any] | None], tests: Sequence[str]) -> list[str]:
    known = [f for f in figures if f and f["value"] is not None]
    decimals = decimals_for([f["value"] for f in known])
    values = [f["value"] if f else None for f in figures]
    best = best_of_each(values, tests, higher=bool(known) and known[0]["higher_is_better"])
    return [_figure(f, decimals, most) if f in known else "–" for f, most in zip(figures, best, strict=True)]


def _figure(figure: Any, decimals: int, best: float | None) -> str:
    text = number(figure["value"], decimals)
    text = f"**{text}**" if figure["value"] == best else text
    low, high = figure["low"], figure["high"]
    return text if low is None or high is None else f"{text} [{number(low, decimals)}, {number(high, decimals)}]"


def _label(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    figure = next((row["figures"][name] for row in rows if name in row["figures"]), None)
    return name if figure is None else figure_label(name, figure["higher_is_better"], figure["unit"])


def _cost(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], left: int) -> list[str]:
    lines = [list(header), ["---"] * left + ["---:"] * (len(header) - left), *rows]
    return ["| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines]


def _text(cell: Any) -> str:
    if isinstance(cell, Mapping):
        cell = f"{cell['text']} [{cell['detail']}]" if cell["detail"] else cell["text"]
    return str(cell).replace("|", "\\|")
