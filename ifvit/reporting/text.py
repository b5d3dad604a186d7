"""One evaluation on a terminal."""

from collections.abc import Mapping
from typing import Any

from ifvit.reporting.counting import counting_text
from ifvit.reporting.numbers import IMAGE_SETS, aligned, measured_columns, number, shown


def results_text(results: Mapping[str, Any]) -> str:
    """A table of all splits, that of counts where there are some, and below what must be known to read it."""
    listed = measured_columns(results["splits"])
    rows = [["", *(column.title for _, column in listed)]]
    for split, image_sets in results["splits"].items():
        rows.append([f"{split}, {results['protocol']['splits'][split]['num_images']} images", *[""] * len(listed)])
        for key, title in IMAGE_SETS.items():
            cells = [shown(number(image_sets[key], name, column), column.decimals) for name, column in listed]
            rows.append([f"  {title}", *cells])
    return "\n".join([aligned(rows), *filter(None, [counting_text(results)]), *remarks(results)])


def remarks(results: Mapping[str, Any]) -> list[str]:
    """What a reader of the numbers must know, one sentence each."""
    protocol = results["protocol"]
    how = (
        f"guidance scale {protocol['guidance_scale']:g} (the paper's omega {protocol['omega']:g}), "
        f"{protocol['solver']}, {protocol['num_inference_steps']} evaluations, seed {protocol['seed']}"
    )
    generated = [image_sets["generated"] for image_sets in results["splits"].values()]
    said = [values["remark"] for metrics in generated for values in metrics.values() if "remark" in values]
    return [how, *dict.fromkeys(said), *filter(None, [results["notice"]])]
