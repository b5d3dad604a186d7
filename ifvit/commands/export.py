"""Write a run's averaged weights as a model folder: config, weights, recipe, scheduler and what encoders it needs.

The folder is read by ifvit.load_model(DIR) and `ifvit sample DIR`, without DeepSpeed.
"""

import argparse
import shutil
from pathlib import Path

from ifvit.config.arguments import add_set_argument
from ifvit.config.errors import UserError
from ifvit.config.loading import resolved_yaml
from ifvit.runtime.files import refuse_used_folder

PRECISIONS = {"fp32": "float32", "fp16": "float16"}  # as torch calls them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, runs/NAME")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest intact one)")
    parser.add_argument("--ema-decay", type=float, metavar="D", help="which average (default: the recipe's first)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the weights (default: fp32)")
    parser.add_argument(
        "--with-encoders", action="store_true", help="copy the encoders too (default: only where they are)"
    )
    add_set_argument(parser, "give a field of the exported recipe another value, encoders.autoencoder=DIR say")


def run(arguments: argparse.Namespace) -> None:
    refuse_used_folder(arguments.out, "--out")
    import torch

    from ifvit.commands.pipeline_folder import write_pipeline
    from ifvit.commands.trained_model import load_run, write_description
    from ifvit.encoders.loading import load_encoders
    from ifvit.model.weights import CONFIG_FILE, save_model
    from ifvit.runtime.run_directory import find_run

    run_directory = find_run(arguments.run)
    if (run_directory.path / CONFIG_FILE).is_file():
        raise UserError(f"{arguments.run}: is a model folder already, export takes a run; copy the folder")
    trained = load_run(run_directory, arguments.step, arguments.ema_decay, arguments.overrides)
    assert trained.encoders is not None, "a run with a checkpoint has its environment.json"
    encoders = None
    if arguments.with_encoders:
        encoders = load_encoders(trained.recipe, torch.device("cpu"))
        trained.check_encoders(encoders)
    unfinished = arguments.out.with_name(f".unfinished-{arguments.out.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    dtype = getattr(torch, PRECISIONS[arguments.precision])
    save_model(unfinished, trained.recipe.model, trained.model.state_dict(), dtype)
    (unfinished / run_directory.recipe_file.name).write_text(resolved_yaml(trained.recipe), encoding="utf-8")
    shutil.copy(run_directory.environment_file, unfinished)
    write_pipeline(unfinished, trained.recipe, trained.encoders, encoders)
    rounded = "" if arguments.precision == "fp32" else f", {arguments.precision}"
    description = trained.description + rounded
    write_description(unfinished, description)
    if arguments.out.is_dir():
        arguments.out.rmdir()
    unfinished.rename(arguments.out)
    print(f"{arguments.out}: {description}")
