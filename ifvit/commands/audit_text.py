"""An audit's report as text for a terminal of 120 columns."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

WIDTH = 120
Z_REMARK = (
    "z: how far what was found lies from what a perfect shuffle gives, in standard deviations. Under 5 passes: a "
    "perfect shuffle is beyond that once in 1.7 million times, a faulty one mostly beyond 100."
)
REMARKS = (
    "all data at all times: the epoch cut into equal parts, and the data in the order of storage; how often samples of "
    "each part of the data come in each part of the epoch. distance, correlation: of where samples that follow one "
    "another lie in storage. chi-square: how unequal counts are that should be equal; the number of them is expected."
)
LANES_REMARK = (
    "In lanes, few shards are in use at a time, by design: as expected stands what a full shuffle would give, to "
    "compare with, and how well the samples mix is not judged."
)
SAMPLED_REMARK = (
    "sampled: each sample looked up was traced to its place by running the order backwards, and asked for there. An "
    "epoch has N places for N samples, so as many are repeated as are missing; with 95% confidence those are fewer "
    "than {limit} of N here. The other checks look at the first steps, the last ones and random runs of steps."
)
Row = Sequence[str]


def audit_text(report: dict[str, Any]) -> str:
    """`report` is what `ifvit data audit --json` prints."""
    stream_exact, stream_chance = divided(report["checks"])
    parts = [heading(report)]
    for audited in report["sets"]:
        exact, chance = divided(audited["checks"])
        name = f" of {audited['name']}" * (len(report["sets"]) > 1)
        parts.append(table(["what must hold" + name, "", ""], map(exact_row, exact)))
        parts.append(table(["how well it is mixed" + name, "", "z", "found", "expected"], map(chance_row, chance)))
    parts.insert(1, table(["what must hold on any ranks", "", ""], map(exact_row, stream_exact)))
    if stream_chance:
        titles = ["how evenly ranks share", "", "z", "found", "mean"]
        parts.append(table(titles, map(chance_row, stream_chance)))
    parts += [rank_table(report), facts(report), *map(wrapped, remarks(report)), conclusion(report)]
    return "\n\n".join(parts)


def divided(checks: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Checks that hold or do not, and those that have a z."""
    checks = list(checks)
    return [check for check in checks if check["z"] is None], [check for check in checks if check["z"] is not None]


def heading(report: dict[str, Any]) -> str:
    lines = [f"{report['recipe']}: seed {report['seed']}, global batches of {report['global_batch_size']:,}"]
    lines += [
        f"{audited['name']}: {audited['samples']:,} samples in {audited['shards']:,} shards, "
        f"{size_text(audited['bytes'])}"
        for audited in report["sets"]
    ]
    epochs = "epoch 0" if report["epochs"] == 1 else f"epochs 0 to {report['epochs'] - 1}"
    share = "all positions" if report["whole_epochs"] else f"{report['positions']:,} positions"
    source = "no shards are needed" if report["on_paper"] else "of the shards, the index alone"
    lanes = "" if report["num_lanes"] is None else f", ordered in {report['num_lanes']} lanes"
    lines.append(f"looked at: {share} of {epochs}{lanes}; {source}")
    return "\n".join(lines)


def exact_row(check: dict[str, Any]) -> Row:
    return [check["name"], check["verdict"], check["found"]]


def chance_row(check: dict[str, Any]) -> Row:
    z = "-" if check["verdict"] == "not judged" else f"{check['z']:+,.2f}"
    return [check["name"], check["verdict"], z, check["found"], check["expected"]]


def rank_table(report: dict[str, Any]) -> str:
    """What each rank reads. From the least to the most of a rank, where they differ."""
    steps = report["ranks"][0]["first_steps"]["steps"]
    rows = []
    for each in report["ranks"]:
        first, epoch = each["first_steps"], each["first_epoch"] or {}
        rows.append(
            [
                f"{each['world_size']:,}",
                f"{report['global_batch_size'] // each['world_size']:,}",
                span_text(first["bytes_read"], size_text),
                span_text(first.get("shards_touched")),
                span_text(first.get("bytes_of_shards_touched"), size_text),
                span_text(epoch.get("rows")),
                span_text(epoch.get("shards_touched")),
            ]
        )
    titles = [
        ["each of", "rows", "reads in", "shards touched", "their size", "rows in", "shards"],
        ["so many ranks", "a step", f"{steps:,} steps", f"in {steps:,} steps", "", "epoch 0", "touched in it"],
    ]
    return aligned([*titles, *rows], left=1)


def facts(report: dict[str, Any]) -> str:
    index = ", ".join(f"{audited['index_bytes_per_sample']:.1f}" for audited in report["sets"])
    return "\n".join(
        [
            f"finding a sample in the order: {speed_text(report['nanoseconds_per_index'])}",
            f"going to step {report['last_step']:,}: {report['seek_seconds'] * 1000:.2f} ms",
            f"index: {index} bytes a sample",
            f"this audit: {report['seconds']:.1f} s, at most {size_text(report['peak_memory_bytes'])} of memory",
        ]
    )


def speed_text(nanoseconds: dict[int, float | None]) -> str:
    """Of the smallest number of samples that are asked for at a time, which is what counts, and of larger ones."""
    measured = {chunk: value for chunk, value in nanoseconds.items() if value is not None}
    if not measured:
        return "not measured, an epoch is too short"
    (chunk, first), *others = measured.items()
    more = ", ".join(f"{value:.0f} ns for {larger:,}" for larger, value in others)
    return f"{first:.0f} ns, asked for {chunk:,} at a time" + f" ({more})" * bool(more)


def remarks(report: dict[str, Any]) -> list[str]:
    limit = max(3 * audited["samples"] / 10_000_000 for audited in report["sets"])
    lines = [Z_REMARK, REMARKS]
    if report["num_lanes"] is not None:
        lines.append(LANES_REMARK)
    if not report["whole_epochs"]:
        lines.append(SAMPLED_REMARK.format(limit=f"{limit:,.1f}"))
    return lines


def conclusion(report: dict[str, Any]) -> str:
    checks = [*report["checks"], *(check for audited in report["sets"] for check in audited["checks"])]
    failed = sum(check["verdict"] == "FAIL" for check in checks)
    open_ = sum(check["verdict"] == "not judged" for check in checks)
    passed = f"{len(checks) - failed - open_} checks passed"
    return f"{report['verdict']}: {passed}, {failed} failed, {open_} not judged"


def table(titles: Row, rows: Iterable[Row]) -> str:
    return aligned([titles, *rows], left=len(titles))


def aligned(rows: Sequence[Row], left: int) -> str:
    """`rows` of equal length as lines of text, the first `left` columns to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def span_text(span: Sequence[int] | None, text: Any = "{:,}".format) -> str:
    """From the least to the most; "-" where it was not counted."""
    if span is None:
        return "-"
    least, most = text(span[0]), text(span[1])
    return least if least == most else f"{least} to {most}"


def size_text(size: int) -> str:
    """1234567 as 1.23 MB."""
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


def wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH)
