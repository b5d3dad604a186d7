"""Measure a run, an export or imported weights on captions of images it was not trained on, against those images.

Takes one caption of each of the first images of every split in the recipe's COCO folder, makes an image of each once,
and writes {RUN}/evaluation/step-.../ (for a model folder weights-.../): images-{split}.npy, grid.png, recipe.yaml and
results.json, in which each number stands with its protocol, beside the same number for the real images and for what the
autoencoder alone makes of them. The same command again goes on where it stopped.

Counts of scenes: match ratio is the share of the groups of shapes in the captions that the image shows as often as the
caption says, average error the mean difference. Where a caption has a combination of count, color and shape that is
kept out of training, as all of split unseen have, its other group does not count.
"""

import argparse
import json
import sys

from ifvit.commands.sampling_options import add_sampling_arguments, sampling_overrides
from ifvit.config.arguments import add_set_argument
from ifvit.config.errors import UserError
from ifvit.evaluation.prompts import SMALLEST_NUM_IMAGES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN_OR_EXPORT", help="runs/NAME, or a folder of export or import-weights")
    parser.add_argument("--num-images", type=int, metavar="N", help="of each split (default: 500, or all there are)")
    parser.add_argument("--splits", nargs="+", metavar="NAME", help="default: val and unseen, where they are there")
    parser.add_argument("--coco-root", metavar="DIR", help="folder with the splits (default: the recipe's)")
    parser.add_argument("--clip", metavar="NAME", help="folder or hub name of a whole CLIP (default: text encoder's)")
    add_sampling_arguments(parser)
    parser.add_argument("--recipe", metavar="RECIPE", help="for imported weights: encoders, scaling factor, data")
    add_set_argument(parser, "give a field of the run's recipe another value, encoders.autoencoder=DIR say")
    parser.add_argument("--json", action="store_true", help="print results.json")


def run(arguments: argparse.Namespace) -> None:
    if arguments.num_images is not None and arguments.num_images < SMALLEST_NUM_IMAGES:
        raise UserError(f"--num-images: is {arguments.num_images}, must be at least {SMALLEST_NUM_IMAGES}")
    if arguments.splits and len(set(arguments.splits)) < len(arguments.splits):
        raise UserError(f"--splits: {' '.join(arguments.splits)} names a split twice")
    from ifvit.commands.evaluation_run import Evaluation, run_evaluation
    from ifvit.commands.trained_model import load_trained_model
    from ifvit.data.images import refuse_bombs
    from ifvit.reporting.text import results_text

    refuse_bombs()
    overrides = [*arguments.overrides, *sampling_overrides(arguments)]
    if arguments.coco_root is not None:
        overrides += [f"data.coco_root={json.dumps(arguments.coco_root)}"]
        overrides += ["data.image_folder=null", "data.image_tars=null"]  # a recipe has one source
    trained = load_trained_model(
        arguments.source, arguments.recipe, overrides, step=arguments.step, ema_decay=arguments.ema_decay
    )
    evaluation = Evaluation(trained, arguments.splits, arguments.num_images, arguments.clip, arguments.seed)
    results = run_evaluation(evaluation)
    print(json.dumps(results, indent=2) if arguments.json else results_text(results))
    print(evaluation.folder, file=sys.stderr if arguments.json else sys.stdout)
