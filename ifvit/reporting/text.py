"""One evaluation on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from ifvit.reporting.numbers import IMAGE_SET_TITLES, aligned, measured_columns, number, number_text
from ifvit.reporting.scene_alignment import scene_alignment_tables


def results_text(results: Mapping[str, Any]) -> str:
    """A table of all splits, that of counts where there are some, and below what must be known to read it."""
    columns = measured_columns([results])
    rows = [["", *(column.title for _, column in columns)]]
    for split, image_sets in results["splits"].items():
        rows.append([f"{split}, {results['protocol']['splits'][split]['num_images']} images", *[""] * len(columns)])
        for key, title in IMAGE_SET_TITLES.items():
            cells = [number_text(number(image_sets[key], name, column), column.decimals) for name, column in columns]
            rows.append([f"  {title}", *cells])
    return "\n".join([aligned(rows), *filter(None, [scene_alignment_tables(results)]), *remarks([results])])


def remarks(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the numbers of evaluations of one protocol must know, one sentence each."""
    protocol = evaluations[0]["protocol"]
    how = (
        f"guidance scale {protocol['guidance_scale']:g} (the paper's omega {protocol['omega']:g}), "
        f"{protocol['solver']}, {protocol['num_inference_steps']} evaluations, seed {protocol['seed']}"
    )
    splits_of: dict[str, dict[str, None]] = {}  # by remark, in the order in which they are first made
    for results in evaluations:
        for split, image_sets in results["splits"].items():
            for values in image_sets["generated"].values():
                for remark in values.get("remarks", []):
                    splits_of.setdefault(remark, {})[split] = None
    said = [
        remark if splits.keys() == protocol["splits"].keys() else f"{', '.join(splits)}: {remark}"
        for remark, splits in splits_of.items()
    ]
    return [how, *said, *filter(None, dict.fromkeys(results["notice"] for results in evaluations))]
