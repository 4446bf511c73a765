"""Curves and matrices as inline SVG: sharp at any size, and coloured by the page's own style, light or dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 348, 214
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 12, 38
CHARACTER = 7.4
"""Width of a digit of a tick in a wide font."""
MOST_POINTS = 300
"""Longer curves are averaged in bins: more points than pixels only make the file large."""
MOST_WIDE = 12
"""Classes up to which it takes the whole width."""
MOST_LABELLED = 30
"""Classes up to which a confusion matrix shows names and counts."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    """CSS class: ``a``, ``b`` or ``faint``."""
    marks: bool = False
    """A dot with its value at every point."""


def percent(value: float) -> str:
    """``0.9874`` as ``98.7 %``."""
    return f"{100 * value:.1f} %".replace(".0 %", " %")


def plain(value: float) -> str:
    """A number with few digits."""
    return f"{value:.1e}".replace("e-0", "e-") if value and abs(value) < 1e-4 else f"{value:.4g}"


def line_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    x_name: str,
    spoken: Callable[[float], str] = plain,
    top: float | None = None,
    low: float | None = None,
) -> str:
    """Curves over one axis as an ``<svg>``; empty where no curve has a point.

    Args:
        title: For people who cannot see it.
        curves: Drawn in order.
        x_name: What the horizontal axis counts.
        spoken: How a value is written.
        top: Upper end of the vertical axis; the largest value if not given.
        low: Its lower end; the smallest value if not given.
    """
    drawn = [Curve(c.name, thinned(c.points), c.style, c.marks) for c in curves if c.points]
    if not drawn:
        return ""
    xs = [x for c in drawn for x, _ in c.points]
    ys = [y for c in drawn for _, y in c.points]
    x_ticks = [x for x in ticks(0, max(xs), 7) if x <= max(xs) and x == int(x)]
    y_ticks = ticks(min(ys) if low is None else low, max(ys) if top is None else top, 5)
    left = max(LEFT, round(8 + CHARACTER * max(len(spoken(value)) for value in y_ticks)))
    place = _Place(0, max(xs), y_ticks[0], y_ticks[-1], left)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(_y_tick(place, value, spoken) for value in y_ticks),
        *(_x_tick(place, value) for value in x_ticks),
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_name)}</text>',
        *(_curve(place, curve, x_name, spoken) for curve in drawn),
        "</svg>",
    ]
    return "".join(parts) + legend(drawn)


@dataclass(frozen=True)
class _Place:
    """From values to pixels of the drawing."""

    x0: float
    x1: float
    y0: float
    y1: float
    left: int
    """Where the axis stands; the values are written before it."""

    def x(self, value: float) -> float:
        return round(self.left + (value - self.x0) / ((self.x1 - self.x0) or 1) * (WIDTH - self.left - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - self.y0) / ((self.y1 - self.y0) or 1) * (HEIGHT - TOP - BOTTOM), 1)


def _y_tick(place: _Place, value: float, spoken: Callable[[float], str]) -> str:
    y = place.y(value)
    line = f'<line class="grid" x1="{place.left}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
    return (
        line + f'<text class="tick" x="{place.left - 8}" y="{y + 4}" text-anchor="end">{escape(spoken(value))}</text>'
    )


def _x_tick(place: _Place, value: float) -> str:
    return f'<text class="tick" x="{place.x(value)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'


def _curve(place: _Place, curve: Curve, x_name: str, spoken: Callable[[float], str]) -> str:
    points = [(place.x(x), place.y(y), x, y) for x, y in curve.points if math.isfinite(y)]
    line = " ".join(f"{x},{y}" for x, y, _, _ in points)
    dots = (
        f'<circle class="dot {curve.style}" cx="{x}" cy="{y}" r="2.6">'
        f"<title>{escape(x_name)} {vx:g}: {escape(spoken(vy))}</title></circle>"
        for x, y, vx, vy in points
    )
    return f'<polyline class="curve {curve.style}" points="{line}"/>' + ("".join(dots) if curve.marks else "")


def legend(curves: Sequence[Curve]) -> str:
    """Names beside their colours; nothing for a single curve."""
    if len(curves) < 2:
        return ""
    keys = "".join(f'<span><i class="key {c.style}"></i>{escape(c.name)}</span>' for c in curves)
    return f'<p class="legend">{keys}</p>'


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most ``most`` points, each the mean of as many neighbours."""
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // most)
    bins = (points[i : i + size] for i in range(0, len(points), size))
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in bins]


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that span ``low`` to ``high``, about ``count`` of them (Heckbert 1990)."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Which class is taken for which, as a table: true class by row; empty for classes too many to read."""
    if len(names) > MOST_LABELLED:
        return ""
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in names)
    rows = (_confusion_row(i, row, names) for i, row in enumerate(counts))
    wide = " wide" if len(names) <= MOST_WIDE else ""
    return (
        f'<div class="scroll"><table class="confusion{wide}">'
        "<caption>rows: what it is; columns: what the model says</caption>"
        f"<tr><td></td>{head}</tr>{''.join(rows)}</table></div>"
    )


def _confusion_row(number: int, row: Sequence[int], names: Sequence[str]) -> str:
    total = sum(row) or 1
    cells = []
    for column, count in enumerate(row):
        kind = "right" if column == number else "wrong"
        share = count / total if column == number else min(1.0, 3 * count / total)
        told = f"{escape(names[number])} taken for {escape(names[column])}: {count} of {sum(row)}"
        shade = f' class="{kind}" style="--s:{share:.3f}"' if count else ""
        cells.append(f'<td{shade} title="{told}">{count or ""}</td>')
    return f'<tr><th scope="row">{escape(names[number])}</th>{"".join(cells)}</tr>'


def confused_pairs(
    counts: Sequence[Sequence[int]], names: Sequence[str], most: int = 12
) -> list[tuple[str, str, int, int]]:
    """The pairs that are confused most: what it is, what the model says, how often, of how many."""
    pairs = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    pairs.sort(key=lambda p: (-p[0], p[1], p[2]))
    return [(names[i], names[j], count, sum(counts[i])) for count, i, j in pairs[:most]]
