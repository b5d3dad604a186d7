"""A model to sample from, wherever it comes from: a run, an export, or imported weights with a recipe beside them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifvit.checkpoint.load import check_model, chosen_checkpoint, read_weights
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.encoders.loading import Encoders
from ifvit.model.uvit import UViT
from ifvit.model.weights import CONFIG_FILE, load_model, load_weights
from ifvit.runtime.run_directory import RunDirectory, find_run


@dataclass(frozen=True)
class TrainedModel:
    """The model in evaluation mode on the CPU, and what must be known to use it."""

    model: UViT
    recipe: Recipe
    description: str  # for people: which weights these are
    encoders: dict[str, Any] | None  # identity of the encoders it was trained with, where that is known

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
                raise UserError(
                    f"encoders.{name}: {here['name']} has other content ({', '.join(differing)}) than the one the "
                    f"model was trained with, {there['name']}; give that one"
                )


def load_trained_model(source: str, given: Recipe | None, step: int | None) -> TrainedModel:
    """The model in `source`: a run (its first EMA, of `step` or the newest checkpoint) or a model folder.

    A model folder without a recipe of its own takes `given`. Raises UserError where nothing usable is there.
    """
    folder = Path(source)
    if (folder / CONFIG_FILE).is_file():
        return load_model_folder(folder, given)
    run = find_run(source)
    recipe = run.read_recipe()
    if given is not None:
        raise UserError(f"--recipe: {source} is a run and has its own recipe; leave --recipe out")
    checkpoint = chosen_checkpoint(run.checkpoints, step)
    check_model(checkpoint, recipe.model)
    decay = recipe.ema.decays[0]
    model = UViT(recipe.model)
    load_weights(model, read_weights(checkpoint, decay), str(checkpoint.folder))
    description = f"{recipe.name}, step {checkpoint.manifest.step}, EMA {decay:g}"
    return TrainedModel(model.eval(), recipe, description, last_encoders(run))


def load_model_folder(folder: Path, given: Recipe | None) -> TrainedModel:
    model = load_model(folder)
    own = RunDirectory(folder)  # an export keeps its run's recipe and environment under the same names
    if own.recipe_file.is_file():
        recipe = own.read_recipe()
    elif given is not None:
        recipe = given
    else:
        raise UserError(f"{folder}: has no recipe.yaml; give encoders and sampling with --recipe RECIPE")
    recipe = recipe.model_copy(update={"model": model.config})
    return TrainedModel(model, recipe, str(folder), last_encoders(own))


def last_encoders(run: RunDirectory) -> dict[str, Any] | None:
    if not run.environment_file.is_file():
        return None
    return json.loads(run.environment_file.read_bytes())["attempts"][-1]["encoders"]
