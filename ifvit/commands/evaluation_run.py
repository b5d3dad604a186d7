"""One evaluation from trained weights to results.json: prompts, sampler, CLIP and metrics meet here."""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ifvit
from ifvit.commands.sampling_options import sampling_overrides
from ifvit.commands.trained_model import load_trained_model
from ifvit.config.schema import Recipe
from ifvit.data.images import refuse_bombs
from ifvit.encoders.clip import OPTION, Clip
from ifvit.encoders.identity import state_digest
from ifvit.encoders.loading import load_encoders
from ifvit.encoders.text_encoder import FIELD
from ifvit.evaluation.image_file import ImageFile
from ifvit.evaluation.metric import ImageSet
from ifvit.evaluation.prompts import PromptList, default_splits, prompt_list
from ifvit.evaluation.protocol import evaluation_protocol, short_digest
from ifvit.evaluation.references import real_images, reconstructed
from ifvit.evaluation.registry import METRICS, measure_all
from ifvit.evaluation.results import FORMAT_VERSION, RESULTS_FILE, read_results
from ifvit.model.attention import set_attention_backend
from ifvit.runtime.distributed import Ranks, training_device
from ifvit.runtime.environment import cpu_model, git_state, gpu_names, package_versions
from ifvit.runtime.files import write_atomically
from ifvit.runtime.progress import Progress
from ifvit.sampling.grid import labelled_grid

GRID_FILE = "grid.png"
GRID_IMAGES = 16  # of each split


class Evaluation:
    """A checkpoint of a run or a model folder, measured in one way. `arguments` are those of `ifvit evaluate`.

    Raises UserError where weights, splits, encoders or CLIP are not there or do not fit.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        overrides = [*arguments.overrides, *sampling_overrides(arguments)]
        if arguments.coco_root is not None:
            overrides.append(f"data.coco_root={json.dumps(arguments.coco_root)}")
        self.seed = arguments.seed
        self.trained = load_trained_model(
            arguments.source, arguments.recipe, overrides, step=arguments.step, ema_decay=arguments.ema_decay
        )
        self.recipe = self.trained.recipe
        coco_root = self.recipe.data.coco_root
        splits = arguments.splits or default_splits(coco_root)
        self.lists = [prompt_list(coco_root, split, arguments.num_images) for split in splits]
        self.device = training_device(Ranks())
        self.encoders = load_encoders(self.recipe, self.device)
        self.clip = load_clip(self.recipe, arguments.clip, self.device)
        self.notice = " ".join(filter(None, (self.encoders.notice, self.clip.notice)))
        self.attention_backend = set_attention_backend(self.recipe.runtime.attention_backend, self.device)
        self.sampler = self.trained.sampler(self.encoders, self.device)
        self.image_size = self.recipe.model.sample_size * self.encoders.autoencoder.factor
        self.reals = [real_images(listed.images, self.image_size) for listed in self.lists]
        self.checkpoint = {
            "step": self.trained.step,
            "ema_decay": self.trained.ema_decay,
            "weights_sha256": state_digest(self.trained.model.state_dict()),
            "scaling_factor": self.trained.scaling_factor,
            "diffusion": self.recipe.diffusion.model_dump(mode="json"),
        }
        self.protocol = evaluation_protocol(
            self.lists, self.reals, self.recipe.sampling, self.seed, self.encoders, self.clip
        )
        digest = short_digest(self.checkpoint, self.protocol, self.device.type)
        weights = "weights" if self.trained.step is None else f"step-{self.trained.step:08d}"
        self.folder = self.trained.own.evaluation / f"{weights}-{digest}"

    def finished_results(self) -> dict[str, Any] | None:
        """What an earlier start wrote, if it has every metric."""
        results = read_results(self.folder)
        if results is None:
            return None
        measured = [values.keys() for split in results["splits"].values() for values in split.values()]
        return results if all(names >= METRICS.keys() for names in measured) else None

    def generate(self) -> list[NDArray[np.uint8]]:
        """The images of each list, (N, height, width, 3); those of an earlier start are not made again."""
        batch_size = self.recipe.sampling.batch_size
        shape = (self.image_size, self.image_size, 3)
        files = [
            ImageFile(self.folder / f"images-{listed.split}.npy", (len(listed.prompts), *shape), batch_size)
            for listed in self.lists
        ]
        total, finished = sum(file.shape[0] for file in files), sum(file.num_finished for file in files)
        with Progress(total, "sampling", unit="image", initial=finished) as progress:
            for file, listed in zip(files, self.lists, strict=True):
                file.fill(partial(self.sample, listed), progress.advance)
        return [file.read() for file in files]

    def sample(self, listed: PromptList, rows: slice) -> NDArray[np.uint8]:
        """The images of those rows of a list."""
        return self.sampler.sample(listed.prompts[rows], self.seed, listed.numbers[rows])

    def measure(self, generated: list[NDArray[np.uint8]]) -> dict[str, Any]:
        """For each split the values of every metric: of the images, of the reconstructions, of the real images."""
        splits: dict[str, Any] = {}
        with Progress(3 * len(self.lists), "measuring", unit="image set") as progress:
            for listed, images, real in zip(self.lists, generated, self.reals, strict=True):
                reconstructions = reconstructed(real, self.encoders.autoencoder, self.recipe.sampling.batch_size)
                reference = ImageSet(real, listed.prompts, self.clip)
                splits[listed.split] = values = {}
                for name, pixels in (("generated", images), ("reconstructions", reconstructions)):
                    values[name] = measure_all(ImageSet(pixels, listed.prompts, self.clip), reference)
                    progress.advance()
                values["real"] = measure_all(reference, reference)
                progress.advance()
        return splits

    def write_grid(self, generated: list[NDArray[np.uint8]]) -> None:
        images = np.concatenate([images[:GRID_IMAGES] for images in generated])
        labels = [f"{each.split}: {prompt}" for each in self.lists for prompt in each.prompts[:GRID_IMAGES]]
        scale = self.recipe.sampling.guidance_scale
        title = f"{self.trained.description}, guidance scale {scale:g}, seed {self.seed}. {self.notice}"
        labelled_grid(images, labels, title).save(self.folder / GRID_FILE)

    def run(self) -> dict[str, Any]:
        """Make and measure what is missing and write results.json, which is returned."""
        self.folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        generated = self.generate()
        generation_seconds = time.monotonic() - start
        self.write_grid(generated)
        splits = self.measure(generated)
        measuring_seconds = time.monotonic() - start - generation_seconds
        results = {
            "format_version": FORMAT_VERSION,
            "run": self.recipe.name,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "checkpoint": self.checkpoint,
            "protocol": self.protocol,
            "splits": splits,
            "notice": self.notice,
            "encoders": {
                "autoencoder": self.encoders.autoencoder.identity,
                "text_encoder": self.encoders.text_encoder.identity,
                "clip": self.clip.identity,
            },
            "made_on": {
                "device": str(self.device),
                "gpus": gpu_names(),
                "cpu": cpu_model(),
                "attention_backend": self.attention_backend,
                "ifvit": ifvit.__version__,
                "git": git_state(Path(ifvit.__file__).parent),
                "packages": package_versions(),
            },
            "seconds": {"generation": round(generation_seconds, 2), "measuring": round(measuring_seconds, 2)},
        }
        write_atomically(self.folder / RESULTS_FILE, (json.dumps(results, indent=2) + "\n").encode())
        return results


def load_clip(recipe: Recipe, name: str | None, device: torch.device) -> Clip:
    """The CLIP of that name; None: the one whose text half the run was trained with."""
    if name is not None:
        return Clip.load(name, device, OPTION)
    return Clip.load(recipe.encoders.text_encoder, device, FIELD, recipe.encoders.tokenizer)


def run_evaluation(arguments: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The evaluation that `arguments` ask for, made now or earlier: its folder, and what results.json has."""
    refuse_bombs()
    evaluation = Evaluation(arguments)
    print(
        f"{evaluation.trained.description}, {evaluation.device.type}, attention: {evaluation.attention_backend}. "
        f"{evaluation.notice}".rstrip(),
        file=sys.stderr,
    )
    results = evaluation.finished_results()
    if results is not None:
        print(f"{evaluation.folder}: evaluated before, nothing left to do", file=sys.stderr)
    return evaluation.folder, results or evaluation.run()
