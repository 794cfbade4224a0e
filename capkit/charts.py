"""Line charts as SVG text: enough for a report that opens offline."""

import html
import math
from collections.abc import Mapping, Sequence

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#475569")
WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 30, 34


def ticks(low: float | int, high: float | int, count: int = 5) -> list[float | int]:
    """Round numbers that span [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    title: str, series: Mapping[str, Sequence[tuple[float | int, float | int]]], x_label: str = "step"
) -> str:
    """An SVG of one line per named series of (x, y). Points that are not finite are left out."""
    lines = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_low, x_high, y_low, y_high = min(xs), max(xs), min(ys), max(ys)
    y_pad = 0.05 * (y_high - y_low) or abs(y_high) * 0.05 or 0.5
    y_low, y_high = y_low - y_pad, y_high + y_pad

    def at(x: float | int, y: float | int) -> tuple[float | int, float | int]:
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
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(x, y) for x, y in points))
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.8'/>")
        if len(points) == 1:
            a, b = at(*points[0])
            parts.append(f"<circle cx='{a:.1f}' cy='{b:.1f}' r='3' fill='{colour}'/>")
        parts.append(_text(WIDTH - RIGHT, TOP + 14 * number, name, f"text-anchor='end' fill='{colour}'"))
    body = "".join(parts)
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' font-family='sans-serif' font-size='11'>{body}</svg>"


def _text(x: float | int, y: float | int, text: str, attributes: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {attributes}>{html.escape(text)}</text>"
