"""Write a run's averaged weights as a model folder: config, weights, recipe and the encoders' identity.

The folder is read by ifvit.load_model(DIR) and `ifvit sample DIR`, without DeepSpeed.
"""

import argparse
import shutil
from pathlib import Path

from ifvit.config.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, runs/NAME")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest intact one)")


def run(arguments: argparse.Namespace) -> None:
    from ifvit.checkpoint.load import chosen_checkpoint, read_weights
    from ifvit.model.weights import save_model
    from ifvit.runtime.run_directory import find_run

    run_directory = find_run(arguments.run)
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise UserError(f"{arguments.out}: is not empty; give --out another folder")
    recipe = run_directory.read_recipe()
    checkpoint = chosen_checkpoint(run_directory.checkpoints, arguments.step)
    decay = recipe.ema.decays[0]
    save_model(arguments.out, recipe.model, read_weights(checkpoint, decay))
    shutil.copy(run_directory.recipe_file, arguments.out)
    shutil.copy(run_directory.environment_file, arguments.out)
    print(f"{arguments.out}: step {checkpoint.manifest.step}, EMA {decay}")
