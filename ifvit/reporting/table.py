"""A comparison as one table: a row for each run, then means over seeds, then the ceilings."""

from collections.abc import Callable, Sequence

from ifvit.reporting.compared_run import ComparedRun
from ifvit.reporting.comparison import Comparison, SeedGroup
from ifvit.reporting.numbers import ABSENT, IMAGE_SET_TITLES, aligned, number_key, number_text
from ifvit.reporting.text import remarks
from ifvit.runtime.progress import duration_text

NOT_RUN = "not run"
COST_TITLES = ("run", "conditioning", "fusion", "parameters", "GFLOPs", "batch", "steps", "steps/s", "time", "loss")
COST_REMARK = (
    "GFLOPs: one image, one forward pass, 2 x MACs of linears and convolutions, the paper's column. steps/s: median of "
    "the logged speeds. time: of the steps up to the last logged one, with checkpoints and sample grids, without "
    "pauses between starts. loss: mean of the last ten logged."
)


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, and below it what must be known to read it."""
    rows = table_rows(comparison)
    titles, *lines = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|" + "---|" * 3 + "---:|" * (len(rows[0]) - 3)
    return "\n".join([titles, rule, *lines, "", *(f"- {remark}" for remark in table_remarks(comparison)), ""])


def comparison_text(comparison: Comparison) -> str:
    """The same for a terminal, which is not as wide: first what the runs cost, then how good they are."""
    num_costs = len(COST_TITLES)
    rows = table_rows(comparison)
    cost = [row[:num_costs] for row in rows if any(row[1:num_costs])]  # the ceilings cost nothing
    quality = [[row[0], *row[num_costs:]] for row in rows]
    return "\n".join([aligned(cost), "", aligned(quality), "", *table_remarks(comparison)])


def table_rows(comparison: Comparison) -> list[list[str]]:
    """Titles, then runs, means and ceilings."""
    return [
        [*COST_TITLES, *(column.title for _, column in comparison.columns)],
        *(run_row(comparison, run) for run in comparison.runs),
        *(mean_row(comparison, group) for group in comparison.groups if len(group.runs) > 1),
        *(ceiling_row(comparison, image_set) for image_set in ("reconstructions", "real")),
    ]


def table_remarks(comparison: Comparison) -> list[str]:
    splits = comparison.protocol["splits"]
    sizes = " / ".join(f"{split} ({split_protocol['num_images']} images)" for split, split_protocol in splits.items())
    return [f"quality: {sizes}", COST_REMARK, hardware_remark(comparison.runs), *remarks(comparison.evaluations)]


def run_row(comparison: Comparison, run: ComparedRun) -> list[str]:
    def text(key: str, decimals: int) -> str:
        return number_text(run.numbers.get(key), decimals) if run.results else NOT_RUN

    seconds = run.numbers["training_seconds"]
    speed = run.numbers["steps_per_second"]
    return [
        *(run.label, run.recipe.model.conditioning, run.recipe.model.fusion.schedule),
        *model_cells(run),
        ABSENT if speed is None else f"{speed:.3g}",
        ABSENT if seconds is None else duration_text(seconds),
        number_text(run.numbers["loss"], 4),
        *quality_cells(comparison, text),
    ]


def mean_row(comparison: Comparison, group: SeedGroup) -> list[str]:
    """Mean and standard deviation over the runs of one recipe."""
    run = group.runs[0]

    def text(key: str, decimals: int) -> str:
        found = group.mean_and_deviation(key)
        return ABSENT if found is None else f"{found[0]:.{decimals}f} ± {found[1]:.{decimals}f}"

    speed, seconds = (group.mean_and_deviation(key) for key in ("steps_per_second", "training_seconds"))
    return [
        *(f"{group.name} (n = {len(group.runs)})", run.recipe.model.conditioning, run.recipe.model.fusion.schedule),
        *model_cells(run),
        ABSENT if speed is None else f"{speed[0]:.3g} ± {speed[1]:.1g}",
        ABSENT if seconds is None else duration_text(seconds[0]),
        text("loss", 4),
        *quality_cells(comparison, text),
    ]


def ceiling_row(comparison: Comparison, image_set: str) -> list[str]:
    """The same numbers for images that no model made."""
    numbers = comparison.ceiling(image_set)
    blank = [""] * (len(COST_TITLES) - 1)
    return [
        IMAGE_SET_TITLES[image_set],
        *blank,
        *quality_cells(comparison, lambda key, decimals: number_text(numbers.get(key), decimals)),
    ]


def model_cells(run: ComparedRun) -> list[str]:
    step = ABSENT if run.step is None else f"{run.step:,}"
    size = f"{run.counted['parameters']:,}", f"{run.counted['gflops']:.4g}"
    return [*size, str(run.recipe.train.global_batch_size), step]


def quality_cells(comparison: Comparison, text: Callable[[str, int], str]) -> list[str]:
    """`text(key, decimals)` of each number, those of the splits in one cell; once where it is the same for all."""
    cells = []
    for name, column in comparison.columns:
        parts = [text(number_key(split, name, column), column.decimals) for split in comparison.protocol["splits"]]
        cells.append(NOT_RUN if set(parts) == {NOT_RUN} else " / ".join(parts))
    return cells


def hardware_remark(runs: Sequence[ComparedRun]) -> str:
    by_hardware: dict[str, list[str]] = {}
    for run in runs:
        by_hardware.setdefault(run.hardware, []).append(run.label)
    if len(by_hardware) == 1:
        return f"trained on {runs[0].hardware}"
    each = "; ".join(f"{', '.join(names)}: {hardware}" for hardware, names in by_hardware.items())
    return f"trained on different hardware, so speeds and times are not comparable: {each}"
