"""Charts as SVG text, for a report that opens offline."""

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Of the look in templates/style.css, light and dark.
COLOURS = tuple(f"var(--s{number})" for number in range(6))
# What is drawn on many charts of a page has one colour on all of them.
FIXED = {"train": 0, "training": 0, "samples": 0, "val": 1, "validation": 1, "greedy": 1, "held out": 1}
WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 30, 34
BAR = "stroke-opacity='.4' stroke-width='5'"
HOVERED = 300  # points of a line that tell their numbers under the pointer
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

    Lines have their names at their ends, unless there is but one of those that every chart has. Points that are not
    finite are left out; if none remain, the chart is an empty string.
    """
    colours = _colours(list(series))
    lines = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    levels = levels or {}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points] + list(levels.values())
    y_pad = _padding(min(ys), max(ys))
    is_named = len(series) > 1 or not set(series) <= {"", *FIXED}
    right = RIGHT + (round(6.4 * max(map(len, lines))) if is_named else 0)
    parts, at = _axes(title, (min(xs), max(xs)), (min(ys) - y_pad, max(ys) + y_pad), x_label, right)
    for name, y in levels.items():
        _, height = at(min(xs), y)
        parts.append(f"<path d='M{LEFT} {height:.1f}H{WIDTH - right}' stroke='var(--bad)' stroke-dasharray='5 4'/>")
        parts.append(_text(LEFT + 4, height - 4, name, "style='fill:var(--bad)'"))
    for name, points in lines.items():
        parts.append(_polyline([at(x, y) for x, y in points], colours[name]))
        if len(points) <= 3:  # a line of so few would hide that there are no others
            parts += [_circle(at(*point), 3, f"fill='{colours[name]}'") for point in points]
    if is_named:
        ends = {name: at(*points[-1])[1] for name, points in lines.items()}
        for name, height in _apart(ends).items():
            parts.append(_text(WIDTH - right + 6, height + 4, name, f"style='fill:{colours[name]}'"))
    told = [{"name": name, "points": _hovered(points, at)} for name, points in lines.items()]
    return _svg(parts, told=told, x_label=x_label, label=title)


def _colours(names: Sequence[str]) -> dict[str, str]:
    """One colour a name: that of all charts if it has one, else in order."""
    free = [place for place in range(len(COLOURS)) if place not in {FIXED.get(name) for name in names}] or [0]
    others = [name for name in names if name not in FIXED]
    places = {name: FIXED[name] for name in names if name in FIXED}
    places |= {name: free[number % len(free)] for number, name in enumerate(others)}
    return {name: COLOURS[places[name]] for name in names}


def _apart(heights: Mapping[str, Number], least: Number = 13) -> dict[str, Number]:
    """Heights of labels, in order and `least` apart, none below the axis."""
    order = sorted(heights, key=lambda name: heights[name])
    found: dict[str, Number] = {}
    low: Number = HEIGHT - BOTTOM
    for name in reversed(order):
        found[name] = low = min(heights[name], low)
        low -= least
    high: Number = TOP
    for name in order:
        found[name] = max(found[name], high)
        high = found[name] + least
    return found


def _hovered(points: Sequence[Point], at: Callable[[Number, Number], Point]) -> list[list[Number]]:
    """Place across, x and y of at most HOVERED points, the last among them."""
    step = math.ceil(len(points) / HOVERED)
    chosen = list(points[::-step])[::-1]
    return [[round(at(x, y)[0], 1), x, y] for x, y in chosen]


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
    parts.append(_polyline([at(*points[i]) for i in shown], COLOURS[0]))
    for i in shown:
        across, height = at(*points[i])
        parts.append(_circle((across, height), 3.5, f"fill='{COLOURS[0]}'"))
        parts.append(_beside(across, height, labels[i]))
    for name, point in alone.items():
        across, height = at(*point)
        parts.append(_circle((across, height), 4, f"fill='{COLOURS[1]}'"))
        parts.append(_beside(across, height, name, f"style='fill:{COLOURS[1]}'"))
    for number, (name, i) in enumerate((marks or {}).items(), start=1):
        if i in shown:
            colour = COLOURS[number % len(COLOURS)]
            parts.append(_circle(at(*points[i]), 7, f"fill='none' stroke='{colour}' stroke-width='2'"))
            parts.append(
                _text(WIDTH - RIGHT, TOP + 14 * number, f"◯ {name}", f"text-anchor='end' style='fill:{colour}'")
            )
    return _svg(parts)


def _beside(across: float, height: float, text: str, style: str = "") -> str:
    """A point's name: to its left where it stands in the right half, so that a long one is not cut off."""
    if across > WIDTH / 2:
        return _text(across - 6, height - 5, text, f"text-anchor='end' {style}".strip())
    return _text(across + 6, height - 5, text, style)


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

    parts = [_text(8, 18, title, "class='title' font-weight='600' font-size='13'")]
    for x in ticks(low, high):
        parts.append(f"<path d='M{across(x):.1f} {TOP}V{height - BOTTOM}' class='grid'/>")
        parts.append(_text(across(x), height - BOTTOM + 16, f"{x:g}", "text-anchor='middle'"))
    for number, (name, (value, start, end)) in enumerate(shown.items()):
        y = TOP + 22 * number + 11
        parts.append(_text(left - 8, y + 4, name, "text-anchor='end'"))
        parts.append(f"<path d='M{across(start):.1f} {y}H{across(end):.1f}' stroke='{COLOURS[0]}' {BAR}/>")
        parts.append(_circle((across(value), y), 4, f"fill='{COLOURS[0]}'"))
    parts.append(_text(WIDTH + left - LEFT - RIGHT, height - 4, x_label, "text-anchor='end'"))
    return _svg(parts, WIDTH + left - LEFT, height)


def histogram(
    title: str, edges: Sequence[Number], counts: Sequence[int], x_label: str, level: Number | None = None
) -> str:
    """SVG of bars between consecutive edges, as high as their counts; a dashed vertical line at `level`.

    Without anything counted, the chart is an empty string.
    """
    if not any(counts):
        return ""
    x_high = edges[-1] if level is None else max(edges[-1], level)
    parts, at = _axes(title, (edges[0], x_high), (0, max(counts) * 1.05), x_label)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        (left, top), (right, bottom) = at(low, count), at(high, 0)
        bar = f"x='{left:.1f}' y='{top:.1f}' width='{max(right - left - 1, 0.5):.1f}' height='{bottom - top:.1f}'"
        parts.append(f"<rect {bar} fill='{COLOURS[0]}'><title>{low:g} to {high:g}: {count:,}</title></rect>")
    if level is not None:
        across, _ = at(level, 0)
        parts.append(f"<path d='M{across:.1f} {TOP}V{HEIGHT - BOTTOM}' stroke='var(--bad)' stroke-dasharray='5 4'/>")
    return _svg(parts, label=title)


def _padding(low: Number, high: Number) -> Number:
    """Margin around the outermost points: 5 % of the range, or of the number if the range is empty."""
    return 0.05 * (high - low) or abs(high) * 0.05 or 0.5


def _axes(
    title: str, xs: Point, ys: Point, x_label: str, right: int = RIGHT
) -> tuple[list[str], Callable[[Number, Number], Point]]:
    """Axes and grid over these ranges, and a function that maps a point (x, y) to its position in the SVG."""
    (x_low, x_high), (y_low, y_high) = xs, ys

    def at(x: Number, y: Number) -> Point:
        across = (x - x_low) / (x_high - x_low or 1)
        up = (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - right), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 18, title, "class='title' font-weight='600' font-size='13'")]
    for y in ticks(y_low, y_high):
        _, height = at(x_low, y)
        parts.append(f"<path d='M{LEFT} {height:.1f}H{WIDTH - right}' class='grid'/>")
        parts.append(_text(LEFT - 6, height + 4, f"{y:g}", "text-anchor='end'"))
    for x in ticks(x_low, x_high):
        across, _ = at(x, y_low)
        parts.append(_text(across, HEIGHT - BOTTOM + 16, f"{x:g}", "text-anchor='middle'"))
    parts.append(_text(WIDTH - right, HEIGHT - 4, x_label, "text-anchor='end'"))
    return parts, at


def _polyline(points: Sequence[Point], colour: str) -> str:
    path = " ".join(f"{across:.1f},{height:.1f}" for across, height in points)
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.8'/>"


def _circle(centre: Point, radius: Number, attributes: str) -> str:
    return f"<circle cx='{centre[0]:.1f}' cy='{centre[1]:.1f}' r='{radius}' {attributes}/>"


def _text(x: Number, y: Number, text: str, attributes: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {attributes}>{html.escape(text)}</text>"


def _svg(
    parts: Sequence[str],
    width: int = WIDTH,
    height: int = HEIGHT,
    told: Sequence[Mapping[str, Any]] = (),
    x_label: str = "",
    label: str = "",
) -> str:
    """`told`: what each line says under the pointer, as templates/page.js reads it."""
    body, hover = "".join(parts), ""
    if told:
        points = html.escape(json.dumps(told), quote=True)
        hover = (
            f" data-lines='{points}' data-x='{html.escape(x_label)}' data-top='{TOP}' data-bottom='{height - BOTTOM}'"
        )
        body += "<path class='pointer' stroke='var(--quiet)'/>"
    named = f" role='img' aria-label='{html.escape(label)}'" if label else ""
    size = f"viewBox='0 0 {width} {height}' width='{width}' font-family='sans-serif' font-size='11'"
    return f"<svg {size}{named}{hover}>{body}</svg>"
