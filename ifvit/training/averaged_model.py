"""The averaged weights as a model of its own, for sample grids and the validation loss."""

import torch

from ifvit.config.schema import Recipe
from ifvit.model.uvit import UViT
from ifvit.model.weights import empty_model, load_weights
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.gathering import gather_parameters


class AveragedModel:
    """The whole model on every rank, in float32 and evaluation mode, with the average of the recipe's first decay.

    Attributes:
        model: has the averages as they were at the last `gather`.
        decay: of the average.
    """

    def __init__(self, recipe: Recipe, engine: DeepSpeedEngine, ema: Ema, device: torch.device) -> None:
        self.engine = engine
        self.ema = ema
        self.decay = recipe.ema.decays[0]
        self.model = empty_model(recipe.model, device).eval().requires_grad_(False)

    def gather(self) -> UViT:
        """Bring `model` up to date. Collective."""
        weights = gather_parameters(
            self.engine.module,
            self.engine.fragments,
            self.ema.averages[self.decay],
            is_sharded=self.engine.is_sharded,
        )
        load_weights(self.model, weights, "the averaged weights")
        return self.model
