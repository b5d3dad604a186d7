"""One evaluation from trained weights to results.json: prompts, sampler, CLIP and metrics meet here."""

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ifvit
from ifvit.commands.trained_model import TrainedModel
from ifvit.config.errors import UserError
from ifvit.config.loading import resolved_yaml
from ifvit.config.schema import Recipe
from ifvit.encoders.clip import OPTION, Clip
from ifvit.encoders.identity import state_digest
from ifvit.encoders.loading import load_encoders
from ifvit.encoders.text_encoder import FIELD
from ifvit.evaluation.generation import GenerationRecord
from ifvit.evaluation.image_file import ImageFile
from ifvit.evaluation.metric import ImageSet, PromptSet
from ifvit.evaluation.prompts import PromptList, default_splits, prompt_list
from ifvit.evaluation.protocol import differing_fields, evaluation_protocol, short_digest
from ifvit.evaluation.references import real_images, reconstructed
from ifvit.evaluation.registry import METRICS, measure_all
from ifvit.evaluation.results import FORMAT_VERSION, RECIPE_FILE, RESULTS_FILE, OlderResultsError, read_results
from ifvit.model.attention_choice import activate_for_sampling
from ifvit.runtime.distributed import Ranks, training_device
from ifvit.runtime.environment import cpu_model, git_state, gpu_names, package_versions
from ifvit.runtime.files import write_atomically
from ifvit.runtime.progress import Progress
from ifvit.sampling.grid import labelled_grid
from ifvit.sampling.sampler import Sampler

GRID_FILE = "grid.png"
GRID_IMAGES = 16  # of each split


class Evaluation:
    """Trained weights measured in one way, in a folder that is named after the content of all that decides the numbers.

    Weights, encoders, CLIP, captions and real images are therefore read first; nothing is made with them before it is
    known that something is missing. Raises UserError where one is not there or does not fit.
    """

    def __init__(
        self, trained: TrainedModel, splits: Sequence[str] | None, num_images: int | None, clip: str | None, seed: int
    ) -> None:
        self.trained = trained
        self.recipe = trained.recipe
        self.seed = seed
        coco_root = self.recipe.data.coco_root
        if coco_root is None:
            raise UserError("--coco-root: the run has no data.coco_root to take prompts and real images from; give one")
        self.lists = [prompt_list(coco_root, split, num_images) for split in splits or default_splits(coco_root)]
        self.device = training_device(Ranks())
        self.encoders = load_encoders(self.recipe, self.device)
        trained.check_encoders(self.encoders)
        self.clip = load_clip(self.recipe, clip, self.device)
        self.notice = " ".join(filter(None, (self.encoders.notice, self.clip.notice)))
        self.attention = activate_for_sampling(self.recipe.runtime.attention_backend, self.recipe.model, self.device)
        self.image_size = self.recipe.model.sample_size * self.encoders.autoencoder.factor
        self.reals = [real_images(listed.images, self.image_size) for listed in self.lists]
        self.checkpoint = {
            "step": trained.step,
            "ema_decay": trained.ema_decay,
            "weights_sha256": state_digest(trained.model.state_dict()),
            "scaling_factor": trained.scaling_factor,
            "diffusion": self.recipe.diffusion.model_dump(mode="json"),
        }
        self.protocol = evaluation_protocol(
            self.lists, self.reals, self.recipe.sampling, self.seed, self.encoders, self.clip
        )
        digest = short_digest(self.checkpoint, self.protocol, self.device.type)
        weights = "weights" if trained.step is None else f"step-{trained.step:08d}"
        self.folder = trained.own.evaluation / f"{weights}-{digest}"

    @cached_property
    def sampler(self) -> Sampler:
        return self.trained.sampler(self.encoders, self.device)

    @property
    def machine(self) -> dict[str, Any]:
        """Where this process computes, and with which code."""
        return {
            "device": str(self.device),
            "gpus": gpu_names(),
            "cpu": cpu_model(),
            "attention_backend": self.attention.backend,
            "ifvit": ifvit.__version__,
            "git": git_state(Path(ifvit.__file__).parent),
            "packages": package_versions(),
        }

    def finished_results(self) -> dict[str, Any] | None:
        """What an earlier start wrote, if it has every metric as this version measures it.

        Raises UserError where the folder has the results of something else: its name is a short digest.
        """
        try:
            results = read_results(self.folder)
        except OlderResultsError:
            return None
        if results is None:
            return None
        asked = {"checkpoint": self.checkpoint, "protocol": self.protocol}
        if differing := differing_fields({name: results[name] for name in asked}, asked):
            raise UserError(f"{self.folder}: has results of another evaluation ({', '.join(differing)}); move it away")
        measured = [values.keys() for split in results["splits"].values() for values in split.values()]
        return results if all(names >= METRICS.keys() for names in measured) else None

    def generate(self, record: GenerationRecord) -> list[NDArray[np.uint8]]:
        """The images of each list, (N, height, width, 3); those of an earlier start are not made again."""

        def made(num_images: int) -> None:
            record.advance(num_images)
            progress.advance(num_images)

        batch_size = self.recipe.sampling.batch_size
        shape = (self.image_size, self.image_size, 3)
        files = [
            ImageFile(self.folder / f"images-{listed.split}.npy", (len(listed.prompts), *shape), batch_size)
            for listed in self.lists
        ]
        total, finished = sum(file.shape[0] for file in files), sum(file.num_finished for file in files)
        with Progress(total, "sampling", unit="images", initial=finished) as progress:
            for file, listed in zip(files, self.lists, strict=True):
                file.fill(partial(self.sample, listed), made)
        return [file.read() for file in files]

    def sample(self, listed: PromptList, rows: slice) -> NDArray[np.uint8]:
        """The images of those rows of a list."""
        return self.sampler.sample(listed.prompts[rows], self.seed, listed.numbers[rows])

    def measure(self, generated: list[NDArray[np.uint8]]) -> dict[str, Any]:
        """For each split the values of every metric: of the images, of the reconstructions, of the real images."""
        splits: dict[str, Any] = {}
        with Progress(3 * len(self.lists), "measuring", unit="image sets") as progress:
            for listed, images, real in zip(self.lists, generated, self.reals, strict=True):
                reconstructions = reconstructed(real, self.encoders.autoencoder, self.recipe.sampling.batch_size)
                prompt_set = PromptSet(listed.prompts, self.clip)
                reference = ImageSet(real, prompt_set)
                splits[listed.split] = values = {}
                for name, pixels in (("generated", images), ("reconstructions", reconstructions)):
                    values[name] = measure_all(ImageSet(pixels, prompt_set), reference)
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
        start = {"time": now(), **self.machine}
        record = GenerationRecord(self.folder, start)
        generated = self.generate(record)
        measuring = time.monotonic()
        self.write_grid(generated)
        splits = self.measure(generated)
        results = {
            "format_version": FORMAT_VERSION,
            "run": self.recipe.name,
            "time": now(),
            "checkpoint": self.checkpoint,
            "protocol": self.protocol,
            "splits": splits,
            "notice": self.notice,
            "encoders": {
                "autoencoder": self.encoders.autoencoder.identity,
                "text_encoder": self.encoders.text_encoder.identity,
                "clip": self.clip.identity,
            },
            "generation": {"starts": record.starts},
            "measured_on": start,
            "seconds": {
                "generation": record.seconds(sum(map(len, generated))),
                "measuring": round(time.monotonic() - measuring, 2),
            },
        }
        write_atomically(self.folder / RECIPE_FILE, resolved_yaml(self.recipe).encode())
        write_atomically(self.folder / RESULTS_FILE, (json.dumps(results, indent=2) + "\n").encode())
        return results


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def load_clip(recipe: Recipe, name: str | None, device: torch.device) -> Clip:
    """The CLIP of that name; None: the one whose text half the run was trained with."""
    if name is not None:
        return Clip.load(name, device, OPTION)
    return Clip.load(recipe.encoders.text_encoder, device, FIELD, recipe.encoders.tokenizer)


def run_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """What the evaluation's results.json has, made now or earlier. Raises UserError where its folder cannot be used."""
    print(
        f"{evaluation.trained.description}, {evaluation.device.type}, attention: {evaluation.attention.backend}. "
        f"{evaluation.notice}".rstrip(),
        *evaluation.attention.notices,
        sep="\n",
        file=sys.stderr,
    )
    try:
        results = evaluation.finished_results()
        if results is not None:
            print(f"{evaluation.folder}: evaluated before, nothing left to do", file=sys.stderr)
        return results or evaluation.run()
    except OSError as error:
        raise UserError(f"{evaluation.folder}: cannot be written ({error.strerror or error})") from error
