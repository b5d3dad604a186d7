"""Trains the small encoders that ifvit brings along, on scenes: scenes-autoencoder and scenes-clip.

Reads a folder made by `python -m data_prep scenes`, learns a tokenizer, a CLIP and a KL autoencoder from its split
train, and measures them on val and unseen. The same scenes, options, machine and versions give the same bytes. What is
finished in the output folder is kept; remove a folder there to train it again.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_prep.scenes import SETTINGS_FILE
from ifvit.config.errors import UserError
from ifvit.runtime.environment import cpu_model
from ifvit.runtime.files import write_atomically

AUTOENCODER, CLIP, QUALITY_FILE = "autoencoder", "clip", "quality.json"
MEASURED_SPLITS = ("val", "unseen")
NUMBERS = {
    "autoencoder_steps": (10_000, "training steps of the autoencoder"),
    "clip_steps": (2500, "training steps of the CLIP"),
    "seed": (0, "of the initial weights and the order of the scenes"),
    "threads": (1, "processor threads; another number gives other bytes"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenes", type=Path, metavar="SCENES", help="folder made by `python -m data_prep scenes`")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="gets autoencoder/, clip/, quality.json")
    for name, (default, text) in NUMBERS.items():
        parser.add_argument(option(name), type=int, metavar="N", default=default, help=f"{text} (default: {default})")


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def run(args: argparse.Namespace) -> None:
    """Train what is missing in `--out`, measure both encoders, print and write the numbers."""
    numbers: dict[str, int] = {name: getattr(args, name) for name in NUMBERS}
    for name, value in numbers.items():
        if value < (lowest := 0 if name == "seed" else 1):
            raise UserError(f"{option(name)}: is {value}, must be at least {lowest}")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {args.out}: cannot be written: {error.strerror}") from error

    import torch

    from data_prep.autoencoder_training import train_autoencoder
    from data_prep.clip_training import train_clip
    from data_prep.scene_set import read_scene_set

    torch.set_num_threads(args.threads)
    scenes = read_scene_set(args.scenes, "train")
    finish(args.out / CLIP, lambda folder: train_clip(scenes, args.clip_steps, args.seed, folder))
    finish(
        args.out / AUTOENCODER,
        lambda folder: train_autoencoder(scenes.pixels, args.autoencoder_steps, args.seed, folder),
    )
    report = {
        "trained_by": "python -m data_prep encoders, on scenes only",
        **numbers,
        "scenes": json.loads((args.scenes / SETTINGS_FILE).read_text(encoding="utf-8")),
        **measured(args.out, args.scenes),
        "cpu": cpu_model(),
        "versions": {name: version(name) for name in ("torch", "transformers", "diffusers", "tokenizers")},
    }
    text = json.dumps(report, indent=2)
    write_atomically(args.out / QUALITY_FILE, f"{text}\n".encode())
    print(text)


def finish(folder: Path, train: Callable[[Path], None]) -> None:
    """`folder` as `train` writes it, unless it is there; it appears when it is whole."""
    if folder.is_dir():
        print(f"{folder}: is there already and kept")
        return
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    train(partial)
    partial.rename(folder)


def measured(folder: Path, scenes_folder: Path) -> dict[str, Any]:
    """The quality of the encoders in `folder` on scenes that they were not trained on, and their size in bytes."""
    from data_prep.encoder_quality import reconstruction_psnr, retrieval
    from data_prep.scene_set import read_scene_set
    from ifvit.encoders.autoencoder import Autoencoder
    from ifvit.encoders.clip import Clip

    autoencoder, clip = Autoencoder.load(str(folder / AUTOENCODER)), Clip.load(str(folder / CLIP))
    quality = {}
    for split in MEASURED_SPLITS:
        scenes = read_scene_set(scenes_folder, split)
        quality[split] = {
            "reconstruction": reconstruction_psnr(autoencoder, scenes),
            "retrieval": retrieval(clip, scenes),
        }
    files = [file for name in (AUTOENCODER, CLIP) for file in (folder / name).iterdir()]
    return {"bytes": sum(file.stat().st_size for file in files), "quality": quality}
