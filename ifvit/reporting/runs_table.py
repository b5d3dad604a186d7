"""The table of `ifvit runs`, as wide as its terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ifvit.reporting.run_overview import FAILED, FINISHED, UNREADABLE, RunOverview
from ifvit.runtime.progress import duration_text, rate_text

ABSENT = "-"
NAME_WIDTH = 12  # to which names are cut before a column is left out


@dataclass(frozen=True)
class RunColumn:
    """One column: its text of a run at a time, in seconds since 1970."""

    title: str
    text: Callable[[RunOverview, float], str]


COLUMNS = (
    RunColumn("run", lambda run, now: run.name),
    RunColumn("state", lambda run, now: run.state),
    RunColumn("step", lambda run, now: ABSENT if run.max_steps is None else f"{run.step:,}"),
    RunColumn("of", lambda run, now: ABSENT if run.max_steps is None else f"{run.max_steps:,}"),
    RunColumn("loss", lambda run, now: loss_text(run.loss)),
    RunColumn("validation", lambda run, now: loss_text(run.validation_loss)),
    RunColumn("samples/s", lambda run, now: speed_text(run)),
    RunColumn("left", lambda run, now: left_text(run)),
    RunColumn("updated", lambda run, now: age_text(now - run.updated) if run.updated else ABSENT),
    RunColumn("starts", lambda run, now: str(run.starts)),
)
LEFT_OUT_FIRST = ("starts", "of", "samples/s", "validation", "updated", "left", "loss")


def runs_table(runs: Sequence[RunOverview], width: int, now: float) -> str:
    """One line a run; below it why runs failed, and which columns are left out for want of `width` characters."""
    columns = list(COLUMNS)
    left_out: list[str] = []
    if all(run.validation_loss is None for run in runs):
        columns = [column for column in columns if column.title != "validation"]
    while table_width(columns, runs, now) > width and len(left_out) < len(LEFT_OUT_FIRST):
        title = LEFT_OUT_FIRST[len(left_out)]
        left_out.append(title)
        columns = [column for column in columns if column.title != title]
    room = width - table_width(columns, runs, now) + name_width(runs)
    name_room = max(NAME_WIDTH, room)
    rows = [[column.title for column in columns]]
    rows += [[shortened(run.name, name_room), *(column.text(run, now) for column in columns[1:])] for run in runs]
    lines = [aligned_row(row, rows) for row in rows]
    lines += [f"{run.name}: {run.reason}" for run in runs if run.state in (FAILED, UNREADABLE) and run.reason]
    shown = [title for title in left_out if any(title == column.title for column in COLUMNS)]
    if shown:
        lines.append(f"no room for: {', '.join(shown)}; --json has all")
    return "\n".join(lines)


def table_width(columns: Sequence[RunColumn], runs: Sequence[RunOverview], now: float) -> int:
    """With names cut to NAME_WIDTH where they are longer."""
    widths = [max([len(column.title), *(len(column.text(run, now)) for run in runs)]) for column in columns[1:]]
    return name_width(runs) + sum(2 + width for width in widths)


def name_width(runs: Sequence[RunOverview]) -> int:
    return min(NAME_WIDTH, max(len(run.name) for run in runs))


def aligned_row(row: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Names and states to the left, numbers to the right."""
    widths = [max(len(each[place]) for each in rows) for place in range(len(row))]
    cells = [*map(str.ljust, row[:2], widths[:2]), *map(str.rjust, row[2:], widths[2:])]
    return "  ".join(cells).rstrip()


def shortened(name: str, width: int) -> str:
    """`name` in at most `width` characters, its end kept: that is where names of one kind differ."""
    return name if len(name) <= width else f"{name[: width // 3]}…{name[len(name) - (width - width // 3 - 1) :]}"


def loss_text(loss: float | None) -> str:
    return ABSENT if loss is None else f"{loss:.4f}"


def speed_text(run: RunOverview) -> str:
    return ABSENT if run.samples_per_second is None else rate_text(run.samples_per_second)


def left_text(run: RunOverview) -> str:
    return ABSENT if run.seconds_left is None or run.state == FINISHED else duration_text(run.seconds_left)


def age_text(seconds: float) -> str:
    """42 -> "42 s ago"; the largest unit that is at least one."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"
