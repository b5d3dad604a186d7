"""Measure the samples per second that training's loader reads from a recipe's shards, and plain webdataset beside it.

Batches are read in training's global shuffle order by one process; the files should fit into memory, whose copy of them
is what is measured. The three ways take turns, a window of batches each; printed are medians, spreads and ratios.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ifvit.commands.benchmark_options import add_window_arguments, warn_of_spread
from ifvit.config.arguments import add_recipe_arguments, require_positive
from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe

if TYPE_CHECKING:
    from ifvit.data.shard_set import ShardSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument(
        "--synthetic", type=int, metavar="N", help="N samples of random numbers of the recipe's shapes, not its shards"
    )
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="default: 256")
    add_window_arguments(parser, 7, "batches", 60)


def run(arguments: argparse.Namespace) -> None:
    require_positive(arguments, "synthetic", "batch_size", "windows", "batches")
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    from ifvit.data.training_data import open_training_data

    if arguments.synthetic is None:
        data = open_training_data(recipe.data)
        if data.are_fetched or len(data.sets) > 1:
            raise UserError(
                f"data: {data.places}: one folder of this machine is measured; give it with --set data.mixture={{}} "
                "--set data.shards_root=DIR, or measure --synthetic N"
            )
        measure(data.sets[0], arguments)
        return
    with tempfile.TemporaryDirectory(prefix="ifvit-loader-") as folder:
        measure(synthetic_shard_set(recipe, Path(folder), arguments.synthetic), arguments)


def synthetic_shard_set(recipe: Recipe, folder: Path, num_samples: int) -> "ShardSet":
    from ifvit.benchmark.synthetic_shards import write_synthetic_shards
    from ifvit.data.shard_set import ShardSet
    from ifvit.runtime.progress import Progress

    with Progress(num_samples, "writing shards", unit="samples") as progress:
        write_synthetic_shards(folder, recipe.model, recipe.data.text_storage, num_samples, on_samples=progress.advance)
    return ShardSet.open(folder)


def measure(shard_set: "ShardSet", arguments: argparse.Namespace) -> None:
    from ifvit.benchmark.loader_throughput import measure_loader
    from ifvit.runtime.environment import cpu_model
    from ifvit.runtime.progress import Progress

    if shard_set.num_samples < arguments.batch_size:
        raise UserError(
            f"--batch-size: is {arguments.batch_size}, but there are {shard_set.num_samples} samples; give fewer"
        )
    with Progress(3 * arguments.windows, "measuring", unit="windows") as progress:
        ways, memory = measure_loader(
            shard_set, arguments.batch_size, arguments.windows, arguments.batches, progress.advance
        )
    ours, _, plain = ways
    report = {
        "machine": cpu_model(),
        "samples": shard_set.num_samples,
        "bytes": shard_set.index["size"],
        "text_storage": shard_set.text_storage,
        "batch_size": arguments.batch_size,
        "samples_per_second": {way.name: way.samples_per_second for way in ways},
        "spread": {way.name: way.spread for way in ways},
        "ratio_to_plain": {way.name: way.ratio_to(plain) for way in ways},
        "epochs_read": arguments.windows * arguments.batches * arguments.batch_size / shard_set.num_samples,
        "peak_megabytes_of_rounds": memory,
    }
    warn_of_spread(ours.spread)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(
        f"{report['machine']}: {shard_set.num_samples:,} samples ({shard_set.index['size']:,} bytes, "
        f"{shard_set.text_storage}), batches of {arguments.batch_size}, {report['epochs_read']:.1f} epochs"
    )
    for way in ways:
        print(
            f"  {way.name:20} {way.samples_per_second:10,.0f} samples/s   spread {way.spread:5.1%}   "
            f"x {way.ratio_to(plain):.1f}"
        )
    print(f"  peak memory after the first round {memory[0]:,.0f} MB, after the last {memory[-1]:,.0f} MB")
