"""Prove, before a long run, that its samples come as they should, for any number of ranks and on any machine.

Runs the code that orders training's samples over whole epochs and checks that each sample comes exactly once, that any
number of ranks read the same batches in equal shares, that a resume goes on in the same order, and that samples and
captions are well mixed. Reads the shards' index, never a tar; with --num-shards not even that.
Exit code 1 when a check fails.
"""

import argparse
import json
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from ifvit.config.arguments import add_recipe_arguments, recipe_from
from ifvit.config.errors import UserError
from ifvit.config.exit_codes import ExitCode
from ifvit.config.schema import Recipe

if TYPE_CHECKING:
    from ifvit.data.audit.audited_shards import AuditedShards

DEFAULT_WORLD_SIZES = (1, 2, 4, 8)
MAX_SHARDS = 1_000_000
MAX_SAMPLES_PER_SHARD = 10_000_000
MINUTES_FROM, HOURS_FROM = 100_000_000, 5_000_000_000  # samples: so many take so long
MAX_WHOLE = 20_000_000_000  # samples: a bit for each is 2.5 GB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument(
        "--world-size", dest="world_sizes", type=int, nargs="+", metavar="W", help="numbers of ranks; default: 1 2 4 8"
    )
    parser.add_argument("--epochs", type=int, default=1, metavar="E", help="whole epochs to look at; default: 1")
    parser.add_argument("--num-shards", type=int, metavar="N", help="on paper: N shards that need not exist")
    parser.add_argument(
        "--samples-per-shard", type=int, metavar="M", help="on paper: samples in each; default: the recipe's"
    )
    parser.add_argument(
        "--num-lanes",
        type=int,
        metavar="L",
        help="the order in L lanes that shards at an address have, for any shards",
    )
    parser.add_argument(
        "--sampled", action="store_true", help="10 million positions and samples, not whole epochs: for huge sets"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    on_paper = arguments.num_shards is not None
    recipe = recipe_from(arguments, unused=("data.", "encoders.") if on_paper else ())
    check_arguments(arguments, recipe)
    from ifvit.commands.audit_text import audit_text
    from ifvit.data.audit.order_audit import AuditPlan, audit_order
    from ifvit.data.sample_stream import SampleStream
    from ifvit.runtime.progress import Progress

    batch_size = recipe.train.global_batch_size
    sets, weights = audited_sets(arguments, recipe)
    announce_size(sum(shards.num_samples for shards in sets) * arguments.epochs, arguments.sampled)
    num_lanes = arguments.num_lanes or recipe.data.num_lanes
    has_lanes = [shards.has_lanes or arguments.num_lanes is not None for shards in sets]
    world_sizes = arguments.world_sizes or [size for size in DEFAULT_WORLD_SIZES if batch_size % size == 0]
    audit = audit_order(
        lambda: SampleStream.of(
            [shards.num_samples_of for shards in sets],
            weights,
            recipe.seed,
            batch_size,
            num_lanes,
            has_lanes,
        ),
        sets,
        AuditPlan(sorted(set(world_sizes)), recipe.train.caption_dropout_prob, arguments.epochs, arguments.sampled),
        lambda rows: Progress(rows, "auditing", unit="samples"),
    )
    report: dict[str, Any] = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "global_batch_size": batch_size,
        "epochs": arguments.epochs,
        "num_lanes": num_lanes if any(has_lanes) else None,
        "on_paper": on_paper,
        "sampled": arguments.sampled,
        **audit.as_json(sets),
        "seconds": time.monotonic() - started,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(report, indent=2) if arguments.json else audit_text(report))
    if audit.failed:
        print(
            f"error: the order of the samples is wrong: {'; '.join(check.name for check in audit.failed)}. This is a "
            "fault of ifvit, not of the recipe: please report it with the output of --json",
            file=sys.stderr,
        )
    return ExitCode.FAILED if audit.failed else ExitCode.DONE


def check_arguments(arguments: argparse.Namespace, recipe: Recipe) -> None:
    """Raises UserError for a number that is out of range or does not fit the recipe."""
    limits = {
        "epochs": 1000,
        "num_shards": MAX_SHARDS,
        "samples_per_shard": MAX_SAMPLES_PER_SHARD,
        "num_lanes": 1_000_000,
    }
    for name, limit in limits.items():
        value = getattr(arguments, name)
        if value is not None and not 1 <= value <= limit:
            raise UserError(f"--{name.replace('_', '-')}: is {value}, must be 1 to {limit:,}")
    if arguments.samples_per_shard is not None and arguments.num_shards is None:
        raise UserError("--samples-per-shard: is for shards on paper, give --num-shards as well")
    if arguments.num_shards is not None and recipe.data.mixture:
        raise UserError("--num-shards: is for one set, but the recipe has a data.mixture; leave that or this out")
    for world_size in arguments.world_sizes or []:
        if world_size < 1 or recipe.train.global_batch_size % world_size:
            raise UserError(
                f"--world-size: {world_size} ranks cannot share train.global_batch_size = "
                f"{recipe.train.global_batch_size} equally; give numbers that divide it"
            )


def audited_sets(arguments: argparse.Namespace, recipe: Recipe) -> tuple[list["AuditedShards"], tuple[float, ...]]:
    """The shards of each set, and the weights of the sets."""
    from ifvit.data.audit.audited_shards import AuditedShards

    if arguments.num_shards is not None:
        samples_per_shard = arguments.samples_per_shard or recipe.data.samples_per_shard
        return [AuditedShards.on_paper(recipe, arguments.num_shards, samples_per_shard)], (1.0,)
    from ifvit.data.training_data import open_training_data

    data = open_training_data(recipe.data)
    data.check(recipe)
    return [AuditedShards.of(shard_set) for shard_set in data.sets], data.weights


def announce_size(num_samples: int, is_sampled: bool) -> None:
    """Say what takes long, or is too much. Raises UserError."""
    if is_sampled or num_samples < MINUTES_FROM:
        return
    if num_samples > MAX_WHOLE:
        raise UserError(f"--epochs: {num_samples:,} samples are too many to look at one by one; give --sampled")
    time_taken = "hours" if num_samples >= HOURS_FROM else "minutes"
    print(
        f"note: {num_samples:,} samples take {time_taken}; with --sampled 10 million of them are looked at, in seconds",
        file=sys.stderr,
    )
