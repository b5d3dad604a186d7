"""The paper's counting table for scenes: match ratio and average error of each object and count."""

from collections.abc import Mapping
from typing import Any

from ifvit.reporting.numbers import ABSENT, aligned

METRIC = "scene_alignment"


def counting_text(results: Mapping[str, Any]) -> str:
    """For each split with counts the shapes by the count their prompts ask for; "" where nothing was counted.

    A cell has the average match ratio (Eq. 10 of arXiv 2403.16530), the average error (Eq. 9) and the number of groups.
    """
    tables = []
    for split, image_sets in results["splits"].items():
        by_shape_and_count = image_sets["generated"].get(METRIC, {}).get("by_shape_and_count")
        if by_shape_and_count is not None:
            tables.append("\n".join([f"{split}: match ratio, average error (groups)", table(by_shape_and_count)]))
    return "\n".join(tables)


def table(by_shape_and_count: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A row for each shape and a column for each count that some prompt asks for."""
    counts = [
        count
        for count in next(iter(by_shape_and_count.values()))
        if any(by_count[count]["num_groups"] for by_count in by_shape_and_count.values())
    ]
    rows = [["  asked for", *counts]]
    for shape, by_count in by_shape_and_count.items():
        if any(by_count[count]["num_groups"] for count in counts):
            rows.append([f"  {shape}", *(cell(by_count[count]) for count in counts)])
    return aligned(rows)


def cell(agreement: Mapping[str, Any]) -> str:
    if not agreement["num_groups"]:
        return ABSENT
    ratio, error = agreement["average_match_ratio"], agreement["average_error"]
    return f"{ratio:.2f}, {error:.2f} ({agreement['num_groups']})"
