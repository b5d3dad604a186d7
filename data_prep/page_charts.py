"""Charts of the summary page as inline SVG, in the page's colors."""

import math
from collections.abc import Iterable, Sequence

from data_prep.page_template import text

WIDTH, HEIGHT = 390, 210  # a phone shows it about as large as this: text keeps its size
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 38
NUM_TICKS = 7


class Chart:
    """Values x and y on two axes; y begins at 0."""

    def __init__(self, title: str, x_label: str, x_range: tuple[float, float], y_max: float) -> None:
        self.title, self.x_label = title, x_label
        self.x_min, self.x_max = x_range
        self.y_max = y_max or 1
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_min) / (self.x_max - self.x_min) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.y_max * (HEIGHT - TOP - BOTTOM)

    def bars(self, edges: Sequence[float], heights: Sequence[float], classes: Sequence[str]) -> None:
        for left, right, height, name in zip(edges, edges[1:], heights, classes, strict=False):
            if height:
                width = max(self.x(right) - self.x(left) - 0.6, 0.4)
                self.parts.append(
                    f'<rect class="{name}" x="{self.x(left):.1f}" y="{self.y(height):.1f}" width="{width:.1f}" '
                    f'height="{self.y(0) - self.y(height):.1f}"/>'
                )

    def curve(self, points: Iterable[tuple[float, float]]) -> None:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.parts.append(f'<polyline class="curve" points="{path}"/>')

    def svg(self, x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[tuple[float, str]]) -> str:
        ticks = [
            f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{text(name)}</text>'
            for value, name in x_ticks
        ]
        for value, name in y_ticks:
            y = self.y(value)
            ticks.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            ticks.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text(name)}</text>')
        label = (
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{text(self.x_label)}</text>'
        )
        drawing = "\n".join([*ticks, *self.parts, label])
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(self.title)}">\n{drawing}\n</svg>'


def length_histogram(counts: Sequence[int]) -> str:
    """Captions by number of tokens; the last count, of those that fill all tokens, stands out."""
    last = len(counts) - 1
    lengths = [length for length, count in enumerate(counts) if count]
    first, end = min(lengths), max(lengths)
    chart = Chart("captions by length", "tokens, with start and end", (first - 0.5, end + 0.5), max(counts))
    shown = range(first, end + 1)
    edges = [length - 0.5 for length in range(first, end + 2)]
    chart.bars(edges, [counts[length] for length in shown], ["cut" if length == last else "bar" for length in shown])
    step = nice_step(max(end - first, 1) / NUM_TICKS)
    x_ticks = [(length, str(length)) for length in shown if length % max(1, round(step)) == 0]
    return chart.svg(x_ticks, count_ticks(max(counts)))


def latent_histogram(counts: Sequence[int], total: int, end: float) -> str:
    """Density of scaled latents over -end..end, and the unit normal's as a curve."""
    width = 2 * end / len(counts)
    densities = [count / total / width for count in counts]
    points = [(-end + 2 * end * number / 200, 0.0) for number in range(201)]
    normal = [(x, math.exp(-x * x / 2) / math.sqrt(2 * math.pi)) for x, _ in points]
    highest = max(*densities, 0.4)
    chart = Chart("scaled latents and the unit normal", "scaled latent", (-end, end), 1.05 * highest)
    chart.bars([-end + width * number for number in range(len(counts) + 1)], densities, ["bar"] * len(counts))
    chart.curve(normal)
    step = nice_step(highest / 4)
    y_ticks = [(number * step, f"{number * step:.3g}") for number in range(int(highest / step) + 1)]
    return chart.svg([(x, f"{x:+d}" if x else "0") for x in range(-int(end), int(end) + 1)], y_ticks)


def count_ticks(highest: int) -> list[tuple[float, str]]:
    step = max(1, round(nice_step(highest / 4)))
    return [(value, f"{value:,}") for value in range(0, highest + 1, step)]


def nice_step(value: float) -> float:
    """The next one of 1, 2, 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))
