"""Line charts as inline SVG: round ticks, a line per series, bands, levels. Colours come from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape

from ilora_core.report.parts import Panel, Series

__all__ = ["COLOURS", "nice_ticks", "panel_file", "panel_svg", "running_mean", "short"]

_WIDTH, _HEIGHT = 520.0, 290.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 12.0, 42.0
_MOST_POINTS, _MARKERS = 600, 40
_LETTER = 6.5  # width of a tick's letters, about
COLOURS = 6

_STYLE = (
    "text{font-size:12px;fill:#5b6470}.title{font-size:14px;font-weight:bold;fill:#1c2026}.name{fill:#1c2026}.mid{text-anchor:middle}"
    ".end{text-anchor:end}.rule{stroke:#e3e6ea}.axis,.level,.marked{stroke:#5b6470}.level,.marked{stroke-dasharray:5 4}"
    ".line{fill:none;stroke:currentColor;stroke-width:2}.faint{fill:none;stroke:currentColor;opacity:.28}"
    ".band{fill:currentColor;opacity:.14}circle{fill:currentColor}"
    ".s0{color:#2563a8}.s1{color:#c2571a}.s2{color:#2f8a4c}.s3{color:#8a3fa0}.s4{color:#a4262c}.s5{color:#6b6b6b}"
)

Scale = Callable[[float], float]


def panel_svg(panel: Panel) -> str:
    """One chart as an <svg> element; series k has class "s{k % COLOURS}". A panel without a finite point says so."""
    series = [_clean(s, log_y=panel.log_y) for s in panel.series]
    levels = {name: y for name, y in panel.levels.items() if math.isfinite(y) and (y > 0 or not panel.log_y)}
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for y in _extent(s)]
    head = f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(panel.title)}">'
    if not xs:
        return f'{head}<text x="{_WIDTH / 2:g}" y="{_HEIGHT / 2:g}" class="tick mid">no points</text></svg>'
    first, last = _x_range(panel, xs)
    x_ticks = panel.ticks or [(t, short(t)) for t in nice_ticks(first, last) if first <= t <= last]
    x_ticks = x_ticks or [(first, short(first))]  # a single validation, at a step that is no round number
    y_ticks = _y_ticks([*ys, *levels.values()], log_y=panel.log_y)
    sx = _linear(first, last, _LEFT, _WIDTH - _RIGHT)
    sy = _y_scale(y_ticks, log_y=panel.log_y)  # clipped to the axis
    parts = [head, *_axes(panel, sx, sy, x_ticks, y_ticks)]
    parts += [_level(name, sy(y)) for name, y in levels.items()]
    if panel.marked is not None and min(xs) <= panel.marked <= max(xs):
        x = sx(panel.marked)
        parts.append(f'<line class="marked" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:g}" y2="{_HEIGHT - _BOTTOM:g}"/>')
    parts += [_line(index, s, sx, sy, panel.ticks) for index, s in enumerate(series)]
    return "".join([*parts, "</svg>"])


def panel_file(panel: Panel) -> str:
    """One chart as an SVG file of its own, on white, with its title and what the lines are."""
    chart = panel_svg(panel)
    names = [s.name for s in panel.series] if len(panel.series) > 1 else []
    top = 26 + 18 * len(names)
    legend = "".join(
        f'<g class="s{i % COLOURS}"><line class="line" x1="16" x2="36" y1="{40 + 18 * i}" y2="{40 + 18 * i}"/>'
        f'<text class="name" x="42" y="{44 + 18 * i}">{escape(name)}</text></g>'
        for i, name in enumerate(names)
    )
    inner = chart.partition(">")[2].removesuffix("</svg>")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT + top:g}" '
        f'width="{_WIDTH:g}" font-family="sans-serif">'
        f"<style>{_STYLE}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/><text class="title" x="16" y="20">{escape(panel.title)}</text>{legend}'
        f'<g transform="translate(0 {top})">{inner}</g></svg>\n'
    )


def nice_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from at or below `low` to at or above `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def running_mean(points: Sequence[tuple[float, float]], share: float = 0.04) -> list[tuple[float, float]]:
    """The mean of each point's neighbours, `share` of the line wide, centred."""
    half = max(1, int(len(points) * share / 2))
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for index, (x, _) in enumerate(points):
        low, high = max(0, index - half), min(len(points), index + half + 1)
        smooth.append((x, (sums[high] - sums[low]) / (high - low)))
    return smooth


def short(value: float) -> str:
    """A tick's label: 1500 -> 1.5k."""
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _clean(series: Series, *, log_y: bool) -> Series:
    keep = [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y)]
    band = [row for row in series.band if all(map(math.isfinite, row)) and (row[1] > 0 or not log_y)]
    return replace(series, points=keep, band=band)


def _extent(series: Series) -> list[float]:
    """The y values that the axis must hold: of a noisy line drawn smooth, not its rarest spikes."""
    ys = [y for _, y in series.points] + [y for row in series.band for y in row[1:]]
    if not _is_smooth(series):
        return ys
    inner = sorted(ys)[len(ys) // 100 : len(ys) - len(ys) // 100]
    return inner + [y for _, y in running_mean(series.points)]


def _is_smooth(series: Series) -> bool:
    return series.smooth and len(series.points) > 20


def _x_range(panel: Panel, xs: Sequence[float]) -> tuple[float, float]:
    """Between the outermost points; with some room beside them where ticks are given."""
    if not panel.ticks:
        return min(xs), max(xs)
    first, last = (pick([*xs, *(x for x, _ in panel.ticks)]) for pick in (min, max))
    room = 0.04 * (last - first) or 0.5
    room = room if all(s.joined for s in panel.series) else 0.5
    return first - room, last + room


def _linear(low: float, high: float, start: float, stop: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (stop - start)


def _y_scale(ticks: Sequence[float], *, log_y: bool) -> Scale:
    bottom, top = _HEIGHT - _BOTTOM, _TOP
    transform = math.log10 if log_y else float
    inner = _linear(transform(ticks[0]), transform(ticks[-1]), bottom, top)
    return lambda value: min(max(inner(transform(value)), top), bottom)


def _y_ticks(values: Sequence[float], *, log_y: bool) -> list[float]:
    low, high = min(values), max(values)
    if not log_y:
        return nice_ticks(low, high)
    steps = [
        m * 10.0**p for p in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)
    ]
    below, above = max(t for t in steps if t <= low * 1.001), min((t for t in steps if t >= high * 0.999), default=high)
    chosen = [t for t in steps if below <= t <= above]
    return chosen if len(chosen) > 1 else [below, below * 10]


def _axes(
    panel: Panel, sx: Scale, sy: Scale, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[float]
) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    every = max(1, math.ceil(len(y_ticks) / 8))
    parts = []
    for tick in y_ticks[::every]:
        y = sy(tick)
        parts.append(f'<line class="rule" x1="{_LEFT:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 7:g}" y="{y + 4:.1f}">{short(tick)}</text>')
    most = max(3, int((right - _LEFT) / len(x_ticks) / _LETTER))
    for x, text in x_ticks:
        text = text if len(text) <= most else f"{text[: most - 1]}…"
        parts.append(f'<text class="tick mid" x="{sx(x):.1f}" y="{bottom + 17:g}">{escape(text)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="name mid" x="{middle:g}" y="{_HEIGHT - 6:g}">{escape(panel.x_label)}</text>')
    spot = f"{_TOP + (bottom - _TOP) / 2:g}"
    parts.append(
        f'<text class="name mid" transform="rotate(-90 13 {spot})" x="13" y="{spot}">{escape(panel.y_label)}</text>'
    )
    return parts


def _level(name: str, y: float) -> str:
    right = _WIDTH - _RIGHT
    return (
        f'<line class="level" x1="{_LEFT:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick end" x="{right - 3:g}" y="{y - 5:.1f}">{escape(name)}</text>'
    )


def _line(index: int, series: Series, sx: Scale, sy: Scale, ticks: Sequence[tuple[float, str]]) -> str:
    parts = [f'<g class="s{index % COLOURS}">']
    if not series.joined:
        for x, low, high in series.band:
            parts.append(f'<polyline class="line" points="{_points([(x, low), (x, high)], sx, sy)}"/>')
    elif series.band:
        there = [(x, high) for x, _, high in series.band]
        back = [(x, low) for x, low, _ in reversed(series.band)]
        parts.append(f'<polygon class="band" points="{_points([*there, *back], sx, sy)}"/>')
    if _is_smooth(series):
        parts.append(f'<polyline class="faint" points="{_points(_thin(series.points), sx, sy)}"/>')
        parts.append(f'<polyline class="line" points="{_points(_thin(running_mean(series.points)), sx, sy)}"/>')
    elif series.joined:
        parts.append(f'<polyline class="line" points="{_points(_thin(series.points), sx, sy)}"/>')
    if len(series.points) <= _MARKERS:
        for x, y in series.points:
            title = escape(f"{series.name}, {_name_of(x, ticks)}: {y:.4g}")
            parts.append(f'<circle cx="{sx(x):.1f}" cy="{sy(y):.1f}" r="3"><title>{title}</title></circle>')
    return "".join([*parts, "</g>"])


def _name_of(x: float, ticks: Sequence[tuple[float, str]]) -> str:
    return min(ticks, key=lambda tick: abs(tick[0] - x))[1] if ticks else f"{x:g}"


def _points(points: Sequence[tuple[float, float]], sx: Scale, sy: Scale) -> str:
    return " ".join(f"{sx(x):.1f},{sy(y):.1f}" for x, y in points)


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = math.ceil(len(points) / _MOST_POINTS)
    return points if step <= 1 else [*points[::step], points[-1]]
