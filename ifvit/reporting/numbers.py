"""The numbers that tables and figures show of an evaluation: one for each column of each metric."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ifvit.evaluation.metric import Column
from ifvit.evaluation.registry import METRICS

ABSENT = "-"
IMAGE_SET_TITLES = {"generated": "generated", "reconstructions": "reconstructions", "real": "real images"}


def columns() -> Iterator[tuple[str, Column]]:
    """(metric's name, column) of all there are, in the order of the registry."""
    return ((name, column) for name, metric in METRICS.items() for column in metric.columns)


def measured_columns(evaluations: Iterable[Mapping[str, Any]]) -> list[tuple[str, Column]]:
    """Those of `columns()` that have a number in some part of some evaluation's results."""
    measured = [
        metrics
        for results in evaluations
        for image_sets in results["splits"].values()
        for metrics in image_sets.values()
    ]
    return [
        (name, column)
        for name, column in columns()
        if any(number(metrics, name, column) is not None for metrics in measured)
    ]


def number(metrics: Mapping[str, Any], name: str, column: Column) -> float | None:
    """One number of an image set's `metrics`; None where it was not measured."""
    value: float | None = metrics.get(name, {}).get(column.key)
    return value


def number_key(split: str, name: str, column: Column) -> str:
    """ "val.clip_score.cosine": the name of one number of an evaluation."""
    return f"{split}.{name}.{column.key}"


def number_text(value: float | None, decimals: int) -> str:
    """ "0.500", or "-" where there is no number."""
    return ABSENT if value is None else f"{value:.{decimals}f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """`rows` of equal length as lines of text: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )
