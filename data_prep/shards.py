"""Encodes images with captions into shards of latents and text, as a recipe says.

Lists the samples of {data.coco_root}, {data.image_folder} or {data.image_tars}, encodes each image with the recipe's
autoencoder and all its captions with its text encoder, and writes WebDataset tars, the null embedding and an index to
{data.shards_root}/{data.split}/. Images and captions that cannot be used are left out, counted and reported.

Whatever ends it, the same command makes what is missing. Any number of processes may work on one folder at once: each
shard is made by one of them, and whoever makes the last one writes the index.
"""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.array_task import ArrayTask, add_task_arguments, array_task
from ifvit.config.arguments import add_recipe_arguments
from ifvit.config.errors import UserError, printable
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe

if TYPE_CHECKING:
    from data_prep.listing import Listing
    from data_prep.shard_job import ShardJob


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shards_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say how many bytes each way to store takes; make nothing, with any --workers",
    )
    add_task_arguments(parser)
    parser.add_argument(
        "--workers", type=int, metavar="W", help="processes (default: one per GPU; without a GPU, half the cores)"
    )


def add_shards_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE, --set, --split and --out: which shards, and where."""
    add_recipe_arguments(parser)
    parser.add_argument("--split", metavar="NAME", help="instead of data.split: train, val, ...")
    parser.add_argument("--out", metavar="DIR", help="instead of data.shards_root; shards go to DIR/{split}")


def shards_recipe(args: argparse.Namespace) -> Recipe:
    """The validated recipe. Raises UserError."""
    overrides = list(args.overrides)
    for field, value in (("data.split", args.split), ("data.shards_root", args.out)):
        if value is not None:
            overrides.append(f"{field}={json.dumps(value, ensure_ascii=False)}")  # quoted: text, whatever it looks like
    return load_recipe(args.recipe, overrides)


def run(args: argparse.Namespace) -> None:
    recipe = shards_recipe(args)
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers: is {args.workers}, must be at least 1")
    if not args.dry_run:
        make_shards(recipe, array_task(args.task, args.num_tasks), args.workers)
        return
    print_storage(recipe)


def print_storage(recipe: Recipe) -> None:
    """What `--dry-run` says. Lists the source, or reads its listing, and writes nothing."""
    from data_prep.listing_stage import dry_listing
    from data_prep.shard_folder import storage_errors
    from data_prep.sources import source_of

    folder = listing_folder(recipe)
    with storage_errors(folder):
        print_listing(dry_listing(source_of(recipe.data), recipe.data.samples_per_shard, folder), recipe)


def make_shards(recipe: Recipe, task: ArrayTask | None = None, num_workers: int | None = 1) -> dict[str, Any] | None:
    """Makes what is missing of {data.shards_root}/{data.split}, prints a summary. `num_workers` None: by the machine.

    Returns the index; None while shards of other tasks or processes are missing. Raises UserError.
    """
    from data_prep.shard_folder import storage_errors

    folder = listing_folder(recipe)
    with storage_errors(folder.parent):
        return made_shards(recipe, folder, task or ArrayTask(), num_workers)


def made_shards(
    recipe: Recipe, listing_folder: Path, task: ArrayTask, num_workers: int | None
) -> dict[str, Any] | None:
    from data_prep.listing_stage import current_listing
    from data_prep.shard_job import ShardJob
    from data_prep.shard_workers import make_missing_shards
    from data_prep.sources import source_of
    from ifvit.data.shard_format import INDEX_FILE

    # Nothing heavy is imported up to the workers: most mistakes show here.
    listing = current_listing(source_of(recipe.data), recipe.data.samples_per_shard, listing_folder)
    job = ShardJob(recipe, listing, task)
    print_listing(listing, recipe)
    job.check_listing()
    outcome = make_missing_shards(job, num_workers or default_workers())
    whole = ShardJob(recipe, listing, ArrayTask())
    if outcome.is_complete:
        index: dict[str, Any] = json.loads((job.folder / INDEX_FILE).read_bytes())
        print_summary(whole, index, outcome.num_made)
        return index
    others, again = ("processes", "the same command") if task.count == 1 else ("tasks", "starting all of them again")
    print(
        f"{printable(str(job.folder))}: {outcome.num_made} shards made, "
        f"{listing.num_shards - len(whole.units_there())} of {listing.num_shards} are missing; other {others} may be "
        f"making them: when none is running any more, {again} makes the rest"
    )
    return None


def listing_folder(recipe: Recipe) -> Path:
    from data_prep.listing import LISTING_FOLDER
    from data_prep.shard_job import shards_folder

    return shards_folder(recipe) / LISTING_FOLDER


def default_workers() -> int:
    """One for each GPU. Without one half the cores: each worker has threads that decode beside the one that encodes.

    SLURM's --cpus-per-task counts also where the job is not bound to so many cores.
    """
    import torch

    if os.environ.get("DS_ACCELERATOR") != "cpu" and (num_gpus := torch.cuda.device_count()):
        return num_gpus
    num_cores = len(os.sched_getaffinity(0))
    if (given := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdigit():
        num_cores = min(num_cores, int(given))
    return max(1, num_cores // 2)


def print_listing(listing: "Listing", recipe: Recipe) -> None:
    """What will be stored in how many bytes, and what the source has that cannot be used."""
    from data_prep.listed_sample import NO_CAPTIONS
    from data_prep.storage_sizes import describe_storage

    print("\n".join(describe_storage(listing, recipe)), flush=True)
    print_left_out(listing.content["faults"], listing.content["dropped_captions"])
    if NO_CAPTIONS in listing.content["faults"] and recipe.data.image_folder is not None:
        print("captions are looked for in NAME.txt beside NAME.jpg, one a line, or in metadata.jsonl (file_name, text)")
    if ignored := listing.content["ignored_files"]:
        print(f"not read: {', '.join(f'{count:,} {kind}' for kind, count in ignored.items())}")


def print_left_out(bad_samples: dict[str, Any], dropped_captions: dict[str, Any]) -> None:
    from data_prep.bad_samples import Tally

    for name, values in (("quarantined samples", bad_samples), ("dropped captions", dropped_captions)):
        if values:
            print(f"{name}: {Tally.from_json(values)}")


def print_summary(job: "ShardJob", index: dict[str, Any], num_made: int) -> None:
    """What the finished set of `job`, all of it, has and lacks."""
    from data_prep.bad_samples import deletion, marks_to_delete

    num_skipped = len(index["shards"]) - num_made
    skipped = f" ({num_skipped} were there already)" if num_skipped else ""
    print(
        f"{printable(str(job.folder))}: {len(index['shards'])} shards{skipped}, {index['samples']} samples, "
        f"{index['prompts']} prompts, {index['size']:,} bytes"
    )
    print_left_out(index["quarantined"], index["dropped_captions"])
    if index["quarantined"]:
        marks = (job.finished(unit, {}) for unit in job.units)
        if names := marks_to_delete(mark for mark in marks if mark):
            print(f"to have mended images in the shards: {deletion(names)}, and run the same command")
    used, measured = index["scaling_factor"], index["measured_scaling_factor"]
    source = "measured" if used == measured else f"the recipe's, measured here: {measured:.5f}"
    print(f"scaling_factor: {used:.5f} ({source})")
    for identity in (index["autoencoder"], index["text_encoder"]):
        if identity["random"]:
            print(f"note: {identity['name']} has random weights: these shards check the machinery, not quality")
