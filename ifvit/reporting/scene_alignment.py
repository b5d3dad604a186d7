"""The paper's counting table for scenes: match ratio and average error of each object and count."""

from collections.abc import Mapping
from typing import Any

from ifvit.reporting.numbers import ABSENT, aligned

METRIC = "scene_alignment"
ALL_SHAPES = "any shape"


def scene_alignment_tables(results: Mapping[str, Any]) -> str:
    """For each split with counts the shapes by the count their prompts ask for; "" where nothing was counted.

    A cell has the average match ratio (Eq. 10 of arXiv 2403.16530), the average error (Eq. 9) and the number of groups.
    """
    tables = []
    for split, image_sets in results["splits"].items():
        values = image_sets["generated"].get(METRIC, {})
        if "by_shape_and_count" in values:
            rows = {**values["by_shape_and_count"], ALL_SHAPES: values["by_count"]}
            tables.append("\n".join([f"{split}: match ratio, average error (groups)", table(rows)]))
    return "\n".join(tables)


def table(by_row_and_count: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A row for each shape, then for all, and a column for each count that some prompt asks for."""
    counts = [count for count, agreement in by_row_and_count[ALL_SHAPES].items() if agreement["num_groups"]]
    rows = [["  asked for", *counts]]
    for title, by_count in by_row_and_count.items():
        if any(by_count[count]["num_groups"] for count in counts):
            rows.append([f"  {title}", *(cell(by_count[count]) for count in counts)])
    return aligned(rows)


def cell(agreement: Mapping[str, Any]) -> str:
    if not agreement["num_groups"]:
        return ABSENT
    ratio, error = agreement["average_match_ratio"], agreement["average_error"]
    return f"{ratio:.2f}, {error:.2f} ({agreement['num_groups']})"
