"""A model to sample from, wherever it comes from: a run, an export, or imported weights with a recipe beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ifvit.checkpoint.load import chosen_checkpoint, read_weights
from ifvit.commands.pipeline_folder import copied_encoders
from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe, merged, parse_overrides, validate_recipe
from ifvit.config.schema import Recipe
from ifvit.encoders.loading import Encoders
from ifvit.model.uvit import UViT
from ifvit.model.weights import CONFIG_FILE, check_same_model, load_model, load_weights
from ifvit.runtime.environment import last_attempt
from ifvit.runtime.run_directory import RunDirectory, find_run
from ifvit.sampling.sampler import Sampler

DESCRIPTION_FILE = "description.txt"


@dataclass(frozen=True)
class TrainedModel:
    """The model in evaluation mode on the CPU, and what must be known to use it."""

    model: UViT
    recipe: Recipe
    description: str  # for people: which weights these are
    encoders: dict[str, Any] | None  # identity of the encoders it was trained with, where that is known
    own: RunDirectory  # the run, or the model folder, which keeps its recipe and evaluations under the same names
    step: int | None = None  # of a run's checkpoint, and which of its averages
    ema_decay: float | None = None

    @property
    def scaling_factor(self) -> float:
        """What the latents were multiplied with. Raises UserError where neither run nor recipe says it."""
        if self.recipe.encoders.scaling_factor is None:
            raise UserError("encoders.scaling_factor: give the latent scale of the weights' training, 0.23010 say")
        return self.recipe.encoders.scaling_factor

    def check_encoders(self, encoders: Encoders) -> None:
        """Raises UserError where an encoder has other weights than the one the model was trained with."""
        if self.encoders is None:
            return
        identities = {"autoencoder": encoders.autoencoder.identity, "text_encoder": encoders.text_encoder.identity}
        for name, here in identities.items():
            there = self.encoders[name]
            if differing := [key for key in here if key.endswith("sha256") and here[key] != there[key]]:
                fix = "give that one" if here["name"] != there["name"] else "it has changed since: train anew with it"
                raise UserError(
                    f"encoders.{name}: {here['name']} has other content ({', '.join(differing)}) than the one the "
                    f"model was trained with, {there['name']}; {fix}"
                )

    def sampler(self, encoders: Encoders, device: torch.device) -> Sampler:
        """Makes images with the model, which moves to `device`. Raises UserError where the encoders are others."""
        self.check_encoders(encoders)
        return Sampler(
            self.model.to(device),
            encoders.autoencoder,
            encoders.text_encoder.encode_prompts,
            encoders.text_encoder.encode_prompts([""])[0],
            self.scaling_factor,
            self.recipe.model,
            self.recipe.diffusion,
            self.recipe.sampling,
            device,
        )


def load_trained_model(
    source: str,
    recipe_file: str | None = None,
    overrides: Sequence[str] = (),
    *,
    step: int | None = None,
    ema_decay: float | None = None,
) -> TrainedModel:
    """The model in `source`: a run, of `step` or the newest checkpoint and of one of its averages, or a model folder.

    A model folder without a recipe of its own takes `recipe_file`. `overrides` change the recipe in use. Raises
    UserError where nothing usable is there, and for an argument that `source` has no use for.
    """
    folder = Path(source)
    own = RunDirectory(folder) if (folder / CONFIG_FILE).is_file() else find_run(source)
    if own.recipe_file.is_file() and recipe_file is not None:
        raise UserError(f"--recipe: {source} has its own recipe; leave --recipe out, change fields with --set")
    if not (folder / CONFIG_FILE).is_file():
        return load_run(own, step, ema_decay, overrides)
    for option, value in (("--step", step), ("--ema-decay", ema_decay)):
        if value is not None:
            raise UserError(f"{option}: {source} holds one set of weights, only a run has several; leave {option} out")
    return load_model_folder(own, recipe_file, overrides)


def load_run(
    run: RunDirectory, step: int | None = None, ema_decay: float | None = None, overrides: Sequence[str] = ()
) -> TrainedModel:
    """The average `ema_decay` (None: the recipe's first) of a run's checkpoint."""
    recipe = changed(run.read_recipe(), overrides)
    decay = recipe.ema.decays[0] if ema_decay is None else ema_decay
    if decay not in recipe.ema.decays:
        raise UserError(f"--ema-decay: is {decay}, the run has {', '.join(map(str, recipe.ema.decays))}")
    checkpoint = chosen_checkpoint(run.checkpoints, step)
    check_same_model(checkpoint.manifest.model, recipe.model, str(checkpoint.folder))
    model = UViT(recipe.model)
    load_weights(model, read_weights(checkpoint, decay), str(checkpoint.folder))
    description = f"{recipe.name}, step {checkpoint.manifest.step}, EMA {decay:g}"
    return TrainedModel(model.eval(), recipe, description, last_encoders(run), run, checkpoint.manifest.step, decay)


def load_model_folder(own: RunDirectory, recipe_file: str | None, overrides: Sequence[str]) -> TrainedModel:
    model = load_model(own.path)
    if own.recipe_file.is_file():
        recipe = own.read_recipe()
        encoders = recipe.encoders.model_copy(update=copied_encoders(own.path))
        recipe = changed(recipe.model_copy(update={"encoders": encoders}), overrides)
    elif recipe_file is not None:
        recipe = load_recipe(recipe_file, overrides)
    else:
        raise UserError(f"{own.path}: has no recipe.yaml; give encoders and sampling with --recipe RECIPE")
    recipe = recipe.model_copy(update={"model": model.config})
    return TrainedModel(model, recipe, read_description(own.path), last_encoders(own), own)


def changed(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    values = merged(recipe.model_dump(mode="json"), parse_overrides(overrides))
    return validate_recipe(values, "--set")


def write_description(folder: Path, description: str) -> None:
    """Say in a model folder which weights these are."""
    (folder / DESCRIPTION_FILE).write_text(description + "\n", encoding="utf-8")


def read_description(folder: Path) -> str:
    file = folder / DESCRIPTION_FILE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else str(folder)


def last_encoders(run: RunDirectory) -> dict[str, Any] | None:
    attempt = last_attempt(run.environment_file)
    return None if attempt is None else attempt["encoders"]
