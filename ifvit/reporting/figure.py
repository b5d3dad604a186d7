"""A comparison as one figure: a panel for each number, a row for each recipe, a point for each seed."""

import io
from typing import Any

from ifvit.evaluation.metric import Column
from ifvit.reporting.comparison import Comparison, SeedGroup
from ifvit.reporting.numbers import number_key

PANELS_PER_ROW = 2
WIDTH, DPI = 8.0, 150  # inches; 1200 pixels
SPLIT_COLORS = ("#0b6e99", "#e07b00", "#6a3d9a", "#3a7d34")  # told apart also without colour: by their markers
SPLIT_MARKERS = ("o", "D", "s", "^")
SCENE_SPLITS = {"val": "seen combinations (val)", "unseen": "unseen combinations"}
FONT_SIZE = 13
DODGE = 0.18  # of a row: how far the splits stand apart


def figure_png(comparison: Comparison) -> bytes:
    """The figure as a PNG of 1200 pixels' width."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"font.size": FONT_SIZE, "axes.titlesize": FONT_SIZE}):
        make_figure(comparison).savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


def make_figure(comparison: Comparison) -> Any:
    """A matplotlib Figure, made without pyplot: nothing is shown and nothing stays open."""
    from matplotlib.figure import Figure

    groups = [group for group in comparison.groups if any(run.results for run in group.runs)]
    plotted = [(name, column) for name, column in comparison.columns if column.is_plotted]
    num_rows = -(-(len(plotted) + 1) // PANELS_PER_ROW)
    figure = Figure(figsize=(WIDTH, num_rows * (0.75 + 0.48 * len(groups)) + 0.6), layout="constrained")
    axes = figure.subplots(num_rows, PANELS_PER_ROW, sharey=True, squeeze=False).ravel()
    for axis, (name, column) in zip(axes, plotted, strict=False):
        draw_quality(axis, comparison, groups, name, column)
    draw_speed(axes[len(plotted)], groups)
    for axis in axes[len(plotted) + 1 :]:
        axis.set_visible(False)
    axes[0].set_yticks(range(len(groups)), row_labels(groups))
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_quality(axis: Any, comparison: Comparison, groups: list[SeedGroup], name: str, column: Column) -> None:
    splits = list(comparison.protocol["splits"])
    titles = SCENE_SPLITS if "unseen" in splits else {}
    for place, split in enumerate(splits):
        key = number_key(split, name, column)
        offset = DODGE * (2 * place - len(splits) + 1)
        color, marker = SPLIT_COLORS[place % len(SPLIT_COLORS)], SPLIT_MARKERS[place % len(SPLIT_MARKERS)]
        draw_points(axis, groups, key, offset, color, marker, titles.get(split, split))
        ceiling = comparison.ceiling("reconstructions").get(key)
        if ceiling is not None:
            label = "autoencoder alone: the best possible" if place == 0 else None
            axis.axvline(ceiling, color=color, linestyle=":", linewidth=1.5, label=label)
    axis.set_title(f"{column.title} ({'higher' if column.more_is_better else 'lower'} is better)")
    finish(axis)


def draw_speed(axis: Any, groups: list[SeedGroup]) -> None:
    draw_points(axis, groups, "steps_per_second", 0.0, "#333333", "o", "")
    axis.set_title("training steps/s (higher is better)")
    finish(axis)
    axis.set_xlim(0, 1.05 * axis.get_xlim()[1])


def draw_points(
    axis: Any, groups: list[SeedGroup], key: str, offset: float, color: str, marker: str, label: str
) -> None:
    """A point for each seed, and a line where their mean is."""
    for row, group in enumerate(groups):
        values = group.values(key)
        heights = [row + offset] * len(values)
        axis.plot(
            values, heights, linestyle="", marker=marker, markersize=8, alpha=0.75, color=color,
            label=label if row == 0 else None,
        )  # fmt: skip
        if found := group.mean_and_deviation(key):
            axis.vlines(found[0], row + offset - DODGE, row + offset + DODGE, color=color, linewidth=2.5)


def finish(axis: Any) -> None:
    axis.grid(axis="x", color="#dddddd")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.08)


def row_labels(groups: list[SeedGroup]) -> list[str]:
    """Conditioning and fusion where they tell the groups apart, otherwise the names."""
    cells = [group.runs[0].cell for group in groups]
    if len(set(cells)) < len(cells):
        return [group.name for group in groups]
    return [cell.replace("_", "-").replace(", ", "\n") for cell in cells]
