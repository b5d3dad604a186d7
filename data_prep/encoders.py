"""Trains the small encoders that ifvit brings along, on scenes: scenes-autoencoder and scenes-clip.

Reads a folder made by `python -m data_prep scenes`, learns a tokenizer, a CLIP and a KL autoencoder from its split
train (and from drawn backgrounds without shapes), and measures them on val and unseen. The same scenes, options,
machine and versions give the same bytes. A second start with all of these as before keeps what is finished and makes
the rest; with others it is refused.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_prep.begun_folder import begun_folder, option
from data_prep.scene_drawing import SceneOptions
from data_prep.scene_set import SceneSet, read_scene_set
from data_prep.scenes import SETTINGS_FILE as SCENES_FILE
from ifvit.config.errors import UserError
from ifvit.runtime.environment import cpu_model
from ifvit.runtime.files import write_atomically

AUTOENCODER, CLIP, QUALITY_FILE = "autoencoder", "clip", "quality.json"
SETTINGS_FILE = "encoders.json"  # written first: what the folder is being made with, all of it in quality.json too
MEASURED_SPLITS = ("val", "unseen")
NUMBERS = {
    "autoencoder_steps": (
        10_000,
        "training steps of the autoencoder on scenes; a fifth as many follow, with empty images",
    ),
    "clip_steps": (2500, "training steps of the CLIP"),
    "seed": (0, "of the initial weights, the order of the scenes and the empty images"),
    "threads": (1, "processor threads; another number gives other bytes"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenes", type=Path, metavar="SCENES", help="folder made by `python -m data_prep scenes`")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="gets autoencoder/, clip/, quality.json")
    for name, (default, text) in NUMBERS.items():
        parser.add_argument(option(name), type=int, metavar="N", default=default, help=f"{text} (default: {default})")


def run(args: argparse.Namespace) -> None:
    """Train what is missing in `--out`, measure both encoders, print and write the numbers."""
    numbers: dict[str, int] = {name: getattr(args, name) for name in NUMBERS}
    for name, value in numbers.items():
        if value < (lowest := 0 if name == "seed" else 1):
            raise UserError(f"{option(name)}: is {value}, must be at least {lowest}")
    drawn, options = drawn_with(args.scenes)
    train = read_scene_set(args.scenes, "train")
    others = {split: read_scene_set(args.scenes, split) for split in MEASURED_SPLITS}

    import torch

    from data_prep import autoencoder_training, clip_training
    from data_prep.encoder_quality import quality_text

    if len(train) < (lowest := max(autoencoder_training.BATCH_SIZE, clip_training.BATCH_SIZE)):
        raise UserError(f"SCENES {args.scenes}: has {len(train)} images in train, must have at least {lowest}, a batch")
    settings = {
        **numbers,
        "autoencoder": autoencoder_training.described(args.autoencoder_steps),
        "scenes": drawn,
        "cpu": cpu_model(),
        "versions": {name: version(name) for name in ("torch", "transformers", "diffusers", "tokenizers")},
    }
    torch.set_num_threads(args.threads)
    with begun_folder(args.out, SETTINGS_FILE, settings, label):
        finish(args.out / CLIP, lambda folder: clip_training.train_clip(train, args.clip_steps, args.seed, folder))
        finish(
            args.out / AUTOENCODER,
            lambda folder: autoencoder_training.train_autoencoder(
                train.pixels, options, args.autoencoder_steps, args.seed, folder
            ),
        )
        report = {
            "trained_by": "python -m data_prep encoders, on drawn images only",
            **settings,
            **measured(args.out, others, options),
        }
        write_atomically(args.out / QUALITY_FILE, f"{json.dumps(report, indent=2)}\n".encode())
    print(quality_text(report["quality"]))
    print(f"{report['bytes'] / 1e6:.1f} MB in {args.out}, all numbers in {args.out / QUALITY_FILE}")


def drawn_with(scenes_folder: Path) -> tuple[dict[str, Any], SceneOptions]:
    """Settings and backgrounds of a folder made by `python -m data_prep scenes`. Raises UserError for others."""
    try:
        drawn = dict(json.loads((scenes_folder / SCENES_FILE).read_bytes()))
        return drawn, SceneOptions(tones=tuple(drawn["tones"]), patterns=tuple(drawn["patterns"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"SCENES {scenes_folder}: is not made by `python -m data_prep scenes` ({error})") from error


def label(dotted: str) -> str:
    """What an error calls a setting: the option, or the setting of the folder SCENES."""
    if dotted in NUMBERS:
        return option(dotted)
    return f"SCENES {dotted.removeprefix('scenes.')}" if dotted.startswith("scenes.") else dotted


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


def measured(folder: Path, scenes_by_split: Mapping[str, SceneSet], options: SceneOptions) -> dict[str, Any]:
    """The quality of the encoders in `folder` on images that they were not trained on; their size and sha256."""
    from data_prep.encoder_quality import empty_images, reconstruction_psnr, retrieval
    from ifvit.encoders.autoencoder import Autoencoder
    from ifvit.encoders.clip import Clip

    autoencoder, clip = Autoencoder.load(str(folder / AUTOENCODER)), Clip.load(str(folder / CLIP))
    quality: dict[str, Any] = {
        split: {"reconstruction": reconstruction_psnr(autoencoder, scenes.pixels), "retrieval": retrieval(clip, scenes)}
        for split, scenes in scenes_by_split.items()
    }
    quality["empty"] = {"reconstruction": reconstruction_psnr(autoencoder, empty_images(options))}
    files = sorted(file for name in (AUTOENCODER, CLIP) for file in (folder / name).iterdir())
    return {
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": {
            file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
        },
        "quality": quality,
    }
