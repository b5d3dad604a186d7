"""Measure a run, an export or imported weights: images of captions it was not trained on, against the real ones.

Takes one caption of each of the first images of every split in the recipe's COCO folder, makes an image of each once,
and writes {RUN}/evaluation/step-.../ (for a model folder weights-.../): images-{split}.npy, grid.png and results.json,
in which each number stands with its protocol, beside the same number for the real images and for what the autoencoder
alone makes of them. The same command again goes on where it stopped.
"""

import argparse

from ifvit.commands.sampling_options import add_sampling_arguments
from ifvit.config.arguments import add_set_argument
from ifvit.config.errors import UserError

SMALLEST_SET = 2  # images; a covariance needs two


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN_OR_EXPORT", help="runs/NAME, or a folder of export or import-weights")
    parser.add_argument("--num-images", type=int, metavar="N", help="of each split (default: 500, or all there are)")
    parser.add_argument("--splits", nargs="+", metavar="NAME", help="default: val and unseen, where they are there")
    parser.add_argument("--coco-root", metavar="DIR", help="folder with the splits (default: the recipe's)")
    parser.add_argument("--clip", metavar="NAME", help="folder or hub name of a whole CLIP (default: text encoder's)")
    add_sampling_arguments(parser)
    parser.add_argument("--recipe", metavar="RECIPE", help="for imported weights: encoders, scaling factor, data")
    add_set_argument(parser, "give a field of the run's recipe another value, encoders.autoencoder=DIR say")


def run(arguments: argparse.Namespace) -> None:
    if arguments.num_images is not None and arguments.num_images < SMALLEST_SET:
        raise UserError(f"--num-images: is {arguments.num_images}, must be at least {SMALLEST_SET}")
    if arguments.splits and len(set(arguments.splits)) < len(arguments.splits):
        raise UserError(f"--splits: {' '.join(arguments.splits)} names a split twice")
    from ifvit.commands.evaluation_run import run_evaluation
    from ifvit.reporting.text import results_text

    folder, results = run_evaluation(arguments)
    print(results_text(results))
    print(folder)
