"""Make images from prompts, with a run's averaged weights, an export, or imported weights (these need --recipe).

An image depends on its prompt, the seed and its number, not on the batch it is made in.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from ifvit.commands.sampling_options import add_sampling_arguments, sampling_overrides
from ifvit.config.arguments import add_set_argument
from ifvit.config.errors import UserError
from ifvit.runtime.files import refuse_used_folder

SAMPLES_FILE = "samples.json"
GRID_FILE = "grid.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN_OR_EXPORT", help="runs/NAME, or a folder of export or import-weights")
    parser.add_argument("--prompt", action="append", default=[], help="a caption; may be repeated")
    parser.add_argument("--prompts-file", type=Path, metavar="FILE", help="one caption per line")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="of PNGs and grid.png; replaces earlier")
    parser.add_argument("--num-images-per-prompt", type=int, default=1, metavar="N", help="default: 1")
    add_sampling_arguments(parser)
    parser.add_argument("--recipe", metavar="RECIPE", help="for imported weights: encoders, scaling factor, solver")
    add_set_argument(
        parser, "give a field of the run's recipe (or --recipe's) another value, encoders.autoencoder=DIR say"
    )


def run(arguments: argparse.Namespace) -> None:
    prompts = read_prompts(arguments)
    earlier = earlier_samples(arguments.out)
    overrides = [*arguments.overrides, *sampling_overrides(arguments)]
    from ifvit.commands.trained_model import load_trained_model
    from ifvit.diffusion.guidance import omega_from_guidance_scale
    from ifvit.encoders.loading import load_encoders
    from ifvit.model.attention_choice import activate_for_sampling
    from ifvit.runtime.distributed import Ranks, training_device
    from ifvit.runtime.progress import Progress
    from ifvit.sampling.grid import labelled_grid

    device = training_device(Ranks())
    trained = load_trained_model(
        arguments.source, arguments.recipe, overrides, step=arguments.step, ema_decay=arguments.ema_decay
    )
    recipe, sampling = trained.recipe, trained.recipe.sampling
    encoders = load_encoders(recipe, device)
    attention = activate_for_sampling(recipe.runtime.attention_backend, recipe.model, device)
    sampler = trained.sampler(encoders, device)
    guidance_scale, omega = sampling.guidance_scale, omega_from_guidance_scale(sampling.guidance_scale)
    protocol = {
        "source": str(arguments.source),
        "weights": trained.description,
        "guidance_scale": guidance_scale,
        "omega": omega,
        "solver": sampling.solver,
        "num_inference_steps": sampling.num_inference_steps,
        "seed": arguments.seed,
        "device": str(device),
        "attention_backend": attention.backend,
        "encoders_notice": encoders.notice,
    }
    print(
        f"{trained.description}; guidance scale {guidance_scale:g} (the paper's omega {omega:g}), {sampling.solver}, "
        f"{sampling.num_inference_steps} evaluations, seed {arguments.seed}, {device.type}, attention: "
        f"{attention.backend}",
        file=sys.stderr,
    )
    for notice in filter(None, (*attention.notices, encoders.notice, *encoders.text_encoder.unread(prompts))):
        print(notice, file=sys.stderr)
    repeated = [prompt for prompt in prompts for _ in range(arguments.num_images_per_prompt)]
    numbers = list(range(arguments.num_images_per_prompt)) * len(prompts)
    with Progress(len(repeated), "sampling", unit="images") as progress:
        images = sampler.sample(repeated, arguments.seed, numbers, on_batch=progress.advance)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if earlier:
        print(f"{arguments.out}: earlier samples are replaced", file=sys.stderr)
    for path in earlier:
        path.unlink(missing_ok=True)
    files = write_images(arguments.out, images, repeated, numbers)
    title = f"{trained.description}, guidance scale {guidance_scale:g}, seed {arguments.seed}. {encoders.notice}"
    labelled_grid(images, repeated, title).save(arguments.out / GRID_FILE)
    (arguments.out / SAMPLES_FILE).write_text(json.dumps({**protocol, "images": files}, indent=2) + "\n")
    print(f"{len(images)} images and {arguments.out / GRID_FILE}")


def earlier_samples(out: Path) -> list[Path]:
    """What `ifvit sample` itself put into `out` before. Raises UserError where anything else is there."""
    listing = out / SAMPLES_FILE
    if not listing.is_file():
        refuse_used_folder(out, "--out")
        return []
    names = {entry["file"] for entry in json.loads(listing.read_text())["images"]} | {GRID_FILE, SAMPLES_FILE}
    if others := sorted(entry.name for entry in out.iterdir() if entry.name not in names):
        raise UserError(f"--out {out}: has {others[0]} beside earlier samples; give another folder")
    return sorted(out / name for name in names)


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    prompts = list(arguments.prompt)
    if arguments.prompts_file is not None:
        try:
            lines = arguments.prompts_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--prompts-file {arguments.prompts_file}: cannot be read: {error}") from error
        prompts += [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError("no prompts: give --prompt or --prompts-file")
    if arguments.num_images_per_prompt < 1:
        raise UserError(f"--num-images-per-prompt: is {arguments.num_images_per_prompt}, must be at least 1")
    return prompts


def write_images(folder: Path, images: Any, prompts: list[str], numbers: list[int]) -> list[dict[str, Any]]:
    from PIL import Image

    files = []
    for index, (image, prompt, number) in enumerate(zip(images, prompts, numbers, strict=True)):
        words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]
        name = f"{index:05d}-{words or 'image'}.png"
        Image.fromarray(image).save(folder / name)
        files.append({"file": name, "prompt": prompt, "number": number})
    return files
