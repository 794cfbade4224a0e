"""Charts as SVG text, for a report that opens offline."""

import html
import math
from collections.abc import Callable, Mapping, Sequence

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#475569")
WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 30, 34
Number = float | int
Point = tuple[Number, Number]


def ticks(low: Number, high: Number, count: int = 5) -> list[Number]:
    """Round numbers within [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    title: str, series: Mapping[str, Sequence[Point]], x_label: str = "step", levels: Mapping[str, Number] | None = None
) -> str:
    """SVG with one line per named series of (x, y), and a dashed horizontal line at each named level.

    Points that are not finite are left out; if none remain, the chart is an empty string.
    """
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(series)}  # the same beside others
    lines = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    levels = levels or {}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points] + list(levels.values())
    y_pad = _padding(min(ys), max(ys))
    parts, at = _axes(title, (min(xs), max(xs)), (min(ys) - y_pad, max(ys) + y_pad), x_label)
    for name, y in levels.items():
        _, height = at(min(xs), y)
        parts.append(f"<path d='M{LEFT} {height:.1f}H{WIDTH - RIGHT}' stroke='#dc2626' stroke-dasharray='5 4'/>")
        parts.append(_text(LEFT + 4, height - 4, name, "fill='#dc2626'"))
    names = []
    for number, (name, points) in enumerate(lines.items()):
        colour = colours[name]
        parts.append(_polyline([at(x, y) for x, y in points], colour))
        if len(points) == 1:
            parts.append(_circle(at(*points[0]), 3, f"fill='{colour}'"))
        names.append(_text(WIDTH - RIGHT, TOP + 14 * number, name, f"text-anchor='end' fill='{colour}'"))
    return _svg(parts + names)  # names above the lines that cross them


def path_chart(
    title: str,
    points: Sequence[Point],
    labels: Sequence[str],
    x_label: str,
    marks: Mapping[str, int] | None = None,
    others: Mapping[str, Point] | None = None,
) -> str:
    """SVG of labelled (x, y) points, joined in order; `marks` names some points by index, `others` stand alone.

    Points that are not finite are left out with their labels and marks; if none remain, the chart is an empty string.
    """
    shown = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]
    alone = {name: point for name, point in (others or {}).items() if all(map(math.isfinite, point))}
    if not shown:
        return ""
    xs, ys = zip(*[points[i] for i in shown], *alone.values(), strict=True)
    x_pad, y_pad = _padding(min(xs), max(xs)), _padding(min(ys), max(ys))
    parts, at = _axes(title, (min(xs) - x_pad, max(xs) + x_pad), (min(ys) - y_pad, max(ys) + y_pad), x_label)
    parts.append(_polyline([at(*points[i]) for i in shown], "#93c5fd"))
    for i in shown:
        across, height = at(*points[i])
        parts.append(_circle((across, height), 3.5, f"fill='{COLOURS[0]}'"))
        parts.append(_text(across + 6, height - 5, labels[i], "fill='#6b7280'"))
    for name, point in alone.items():
        across, height = at(*point)
        parts.append(_circle((across, height), 4, f"fill='{COLOURS[1]}'"))
        parts.append(_text(across + 6, height - 5, name, f"fill='{COLOURS[1]}'"))
    for number, (name, i) in enumerate((marks or {}).items(), start=1):
        if i in shown:
            colour = COLOURS[number % len(COLOURS)]
            parts.append(_circle(at(*points[i]), 7, f"fill='none' stroke='{colour}' stroke-width='2'"))
            parts.append(_text(WIDTH - RIGHT, TOP + 14 * number, f"◯ {name}", f"text-anchor='end' fill='{colour}'"))
    return _svg(parts)


def interval_chart(title: str, rows: Mapping[str, tuple[Number, Number, Number]], x_label: str) -> str:
    """SVG with a line each: its name, a point at the value, and a bar from the low to the high end of its interval.

    Rows with a number that is not finite are left out; if none remain, the chart is an empty string.
    """
    shown = {name: row for name, row in rows.items() if all(map(math.isfinite, row))}
    if not shown:
        return ""
    left = LEFT + 7 * max(map(len, shown))
    low, high = min(row[1] for row in shown.values()), max(row[2] for row in shown.values())
    pad = _padding(low, high)
    low, high = low - pad, high + pad
    height = TOP + 22 * len(shown) + BOTTOM

    def across(x: Number) -> Number:
        return left + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [_text(8, 18, title, "font-weight='600' font-size='13'")]
    for x in ticks(low, high):
        parts.append(f"<path d='M{across(x):.1f} {TOP}V{height - BOTTOM}' stroke='#e5e7eb'/>")
        parts.append(_text(across(x), height - BOTTOM + 16, f"{x:g}", "text-anchor='middle'"))
    for number, (name, (value, start, end)) in enumerate(shown.items()):
        y = TOP + 22 * number + 11
        parts.append(_text(left - 8, y + 4, name, "text-anchor='end'"))
        parts.append(f"<path d='M{across(start):.1f} {y}H{across(end):.1f}' stroke='#93c5fd' stroke-width='5'/>")
        parts.append(_circle((across(value), y), 4, f"fill='{COLOURS[0]}'"))
    parts.append(_text(WIDTH + left - LEFT - RIGHT, height - 4, x_label, "text-anchor='end' fill='#6b7280'"))
    return _svg(parts, WIDTH + left - LEFT, height)


def _padding(low: Number, high: Number) -> Number:
    """Margin around the outermost points: 5 % of the range, or of the number if the range is empty."""
    return 0.05 * (high - low) or abs(high) * 0.05 or 0.5


def _axes(title: str, xs: Point, ys: Point, x_label: str) -> tuple[list[str], Callable[[Number, Number], Point]]:
    """Axes and grid over these ranges, and a function that maps a point (x, y) to its position in the SVG."""
    (x_low, x_high), (y_low, y_high) = xs, ys

    def at(x: Number, y: Number) -> Point:
        across = (x - x_low) / (x_high - x_low or 1)
        up = (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 18, title, "font-weight='600' font-size='13'")]
    for y in ticks(y_low, y_high):
        _, height = at(x_low, y)
        parts.append(f"<path d='M{LEFT} {height:.1f}H{WIDTH - RIGHT}' stroke='#e5e7eb'/>")
        parts.append(_text(LEFT - 6, height + 4, f"{y:g}", "text-anchor='end'"))
    for x in ticks(x_low, x_high):
        across, _ = at(x, y_low)
        parts.append(_text(across, HEIGHT - BOTTOM + 16, f"{x:g}", "text-anchor='middle'"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 4, x_label, "text-anchor='end' fill='#6b7280'"))
    return parts, at


def _polyline(points: Sequence[Point], colour: str) -> str:
    path = " ".join(f"{across:.1f},{height:.1f}" for across, height in points)
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.8'/>"


def _circle(centre: Point, radius: Number, attributes: str) -> str:
    return f"<circle cx='{centre[0]:.1f}' cy='{centre[1]:.1f}' r='{radius}' {attributes}/>"


def _text(x: Number, y: Number, text: str, attributes: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {attributes}>{html.escape(text)}</text>"


def _svg(parts: Sequence[str], width: int = WIDTH, height: int = HEIGHT) -> str:
    body = "".join(parts)
    return f"<svg viewBox='0 0 {width} {height}' width='{width}' font-family='sans-serif' font-size='11'>{body}</svg>"
