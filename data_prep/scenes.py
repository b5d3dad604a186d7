"""Draws a countable world: images of colored shapes with captions and boxes, in COCO's layout.

Writes the split train, the split val of the same combinations of count, color and shape, and the split unseen, each of
whose scenes shows a combination that the other two never do. The same options give the same bytes, with any number of
workers. A second start keeps the splits that are finished and makes the rest.
"""

import argparse
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from data_prep.begun_folder import begun_folder, option
from data_prep.scene_drawing import SceneOptions, largest_size
from data_prep.scene_folder import (
    CAPTIONS_PER_IMAGE,
    FORMAT_VERSION,
    MAX_IMAGES,
    Entries,
    Split,
    draw_chunk,
    write_annotations,
)
from ifvit.config.errors import UserError
from ifvit.data.scenes import COLORS, IMAGE_SIZE, MAX_COUNT, PATTERNS, SHAPE_SIZES, SHAPES, TONES
from ifvit.runtime.progress import Progress

SETTINGS_FILE = "scenes.json"  # written first: what the folder is being made with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    smallest, largest = SHAPE_SIZES
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    words: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--num-images", **number, required=True, help="images of the split train")
    parser.add_argument(
        "--num-held-out-images", **number, help="images of val and of unseen, each (default: a tenth, at least 100)"
    )
    parser.add_argument("--seed", **number, default=0, help="decides every scene (default: 0)")
    parser.add_argument(
        "--max-count", **number, default=MAX_COUNT, help=f"shapes in one image, 1 to {MAX_COUNT} (default: {MAX_COUNT})"
    )
    parser.add_argument("--colors", **words, default=list(COLORS), help=f"some of {', '.join(COLORS)} (default: all)")
    parser.add_argument("--shapes", **words, default=list(SHAPES), help=f"some of {', '.join(SHAPES)} (default: all)")
    parser.add_argument("--tones", **words, default=list(TONES), help=f"backgrounds: {', '.join(TONES)} (default: all)")
    parser.add_argument(
        "--patterns", **words, default=list(PATTERNS), help=f"of backgrounds: {', '.join(PATTERNS)} (default: all)"
    )
    parser.add_argument("--min-size", **number, default=smallest, help=f"pixels, of a shape (default: {smallest})")
    parser.add_argument("--max-size", **number, default=largest, help=f"pixels, of a shape (default: {largest})")
    parser.add_argument("--workers", **number, help="processes (default: the usable cores)")


def run(args: argparse.Namespace) -> None:
    if args.num_held_out_images is None:
        args.num_held_out_images = max(100, args.num_images // 10)
    if args.workers is None:
        args.workers = len(os.sched_getaffinity(0))
    make_scenes(args.out, scene_options(args), args.num_images, args.num_held_out_images, args.seed, args.workers)


def scene_options(args: argparse.Namespace) -> SceneOptions:
    """What may be drawn. Raises UserError naming the first option that is wrong."""
    require_range("--num-images", args.num_images, 1, MAX_IMAGES)
    require_range("--num-held-out-images", args.num_held_out_images, 1, MAX_IMAGES)
    require_range("--workers", args.workers, 1)
    require_range("--seed", args.seed, 0)
    require_range("--max-count", args.max_count, 1, MAX_COUNT)
    require_range("--min-size", args.min_size, SHAPE_SIZES[0])
    if args.min_size > (limit := largest_size(args.max_count)):
        raise UserError(
            f"--min-size: is {args.min_size}, must be at most {limit}, the largest size at which --max-count "
            f"{args.max_count} shapes surely fit into {IMAGE_SIZE} pixels"
        )
    require_range("--max-size", args.max_size, SHAPE_SIZES[0], largest_size(1))
    if args.min_size > args.max_size:
        raise UserError(f"--min-size: is {args.min_size}, must be at most --max-size, which is {args.max_size}")
    colors = known_words("--colors", args.colors, tuple(COLORS))
    shapes = known_words("--shapes", args.shapes, SHAPES)
    tones = known_words("--tones", args.tones, tuple(TONES))
    patterns = known_words("--patterns", args.patterns, PATTERNS)
    options = SceneOptions(args.max_count, colors, shapes, tones, patterns, args.min_size, args.max_size)
    if not options.training_groups:
        raise UserError(
            "--max-count, --colors, --shapes: leave only combinations that are held out, none for train; allow for more"
        )
    return options


def require_range(option: str, value: int, low: int, high: int | None = None) -> None:
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{option}: is {value}, must be {limits}")


def known_words(option: str, words: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """`words`, in the order of `known`: the order they were given in changes nothing."""
    for word in words:
        if word not in known:
            near = get_close_matches(word, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"{option}: '{word}' is unknown{hint}, must be one of {', '.join(known)}")
        if words.count(word) > 1:
            raise UserError(f"{option}: {word} is given twice")
    return tuple(word for word in known if word in words)


def make_scenes(
    folder: Path, options: SceneOptions, num_images: int, num_held_out_images: int, seed: int, workers: int
) -> None:
    """Write what is missing of the splits in `folder`, and print a summary. Raises UserError if it holds others."""
    settings = {
        "format_version": FORMAT_VERSION,
        "num_images": num_images,
        "num_held_out_images": num_held_out_images,
        "seed": seed,
        "max_count": options.max_count,
        "colors": list(options.colors),
        "shapes": list(options.shapes),
        "tones": list(options.tones),
        "patterns": list(options.patterns),
        "min_size": options.min_size,
        "max_size": options.max_size,
    }
    splits = [
        Split(folder, "train", num_images, options, seed),
        Split(folder, "val", num_held_out_images, options, seed),
    ]
    if options.held_out_groups:
        splits.append(Split(folder, "unseen", num_held_out_images, replace(options, held_out=True), seed))
    with begun_folder(folder, SETTINGS_FILE, settings, label):
        missing = [split for split in splits if not split.is_finished]
        draw_splits(missing, settings, workers)
    if not options.held_out_groups:
        print("no split unseen: --max-count, --colors and --shapes leave no combination that is held out")
    for split in splits:
        there = "" if split in missing else " (were there already)"
        print(f"{split.images_folder}: {split.num_images} images, {CAPTIONS_PER_IMAGE} captions each{there}")


def label(name: str) -> str:
    """What an error calls a setting."""
    return "format_version of the scenes" if name == "format_version" else option(name)


def draw_splits(splits: Sequence[Split], settings: dict[str, Any], workers: int) -> None:
    if not splits:
        return
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, context, initializer=follow_parent) as pool,
        Progress(sum(split.num_images for split in splits), "scenes", unit="images") as progress,
    ):
        for split in splits:
            split.make_room()
            write_annotations(split, settings, drawn_chunks(split, pool, progress))


def drawn_chunks(split: Split, pool: ProcessPoolExecutor, progress: Progress) -> Iterator[Entries]:
    """What is to be written of each chunk, in order, while the pool draws the next ones."""
    for chunk, entries in zip(split.chunks, pool.map(draw_chunk, split.chunks), strict=True):
        progress.advance(len(chunk.numbers))
        yield entries


def follow_parent() -> None:
    """Make this worker leave Ctrl-C to its parent, and end when the parent ends, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_after_parent, daemon=True).start()


def end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only the pool's processes come here"
    parent.join()
    os._exit(1)
