"""Twelve training steps on the reference's batches, run inside the ranks of a pool."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ifvit.config.schema import DiffusionConfig, OptimizerConfig, RuntimeConfig, TrainConfig
from ifvit.data.batch import Batch
from ifvit.diffusion.objective import Draws, Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.model.reference_weights import import_reference_weights
from ifvit.model.uvit import UViT
from ifvit.model.weights import load_weights
from ifvit.runtime.distributed import Ranks
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.gathering import gather_parameters
from ifvit.training.loop import StepParts, train
from ifvit.training.phases import Phases
from ifvit.training.state import StepResult, TrainState


class GivenDraws(Objective):
    """The objective with the fixture's noise and timesteps in place of drawn ones."""

    def __init__(self, tensors: dict[str, Tensor], rows: slice) -> None:
        null_prompt_embeds = torch.zeros_like(tensors["text_embeds"][0, 0])
        super().__init__(NoiseSchedule(DiffusionConfig()), 1.0, null_prompt_embeds, seed=0, global_batch_size=8)
        self.tensors, self.given_rows = tensors, rows

    def draw(self, step: int, batch: Batch) -> Draws:
        noise = self.tensors["noise"][step, self.given_rows]
        timesteps = self.tensors["timesteps"][step, self.given_rows] - 1  # the fixture has the network's input
        return Draws(timesteps, noise, torch.zeros_like(noise))


class Recorder:
    """Keeps what each step gave."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.results: list[tuple[float, float, float]] = []

    def on_start(self, state: TrainState) -> None: ...

    def on_step(self, state: TrainState, result: StepResult) -> None:
        loss = result.loss.clone()
        torch.distributed.all_reduce(loss)
        self.results.append((loss.item() / self.world_size, result.learning_rate, result.grad_norm.item()))

    def on_stop(self, state: TrainState) -> None: ...


def train_on_reference(ranks: Ranks, folder: Path, num_micro_batches: int, zero_stage: int) -> dict[str, Any]:
    """Losses, learning rates, gradient norms, and full weights and EMA under our names."""
    expected = json.loads((folder / "train/expected.json").read_text())
    settings = expected["optimizer"]
    optimizer = OptimizerConfig(
        learning_rate=settings["lr"],
        weight_decay=settings["weight_decay"],
        adam_betas=tuple(settings["betas"]),
        adam_epsilon=settings["eps"],
        warmup_steps=expected["warmup_steps"],
    )
    rows_per_rank = 8 // ranks.world_size
    config = TrainConfig(
        max_steps=12,
        global_batch_size=8,
        micro_batch_size=rows_per_rank // num_micro_batches,
        precision="fp32",
        caption_dropout_prob=0.0,
    )
    model_config, weights = import_reference_weights(folder / "nnet.safetensors", folder / "config.json")
    model = UViT(model_config)
    load_weights(model, weights, str(folder))
    engine = DeepSpeedEngine(model, config, optimizer, RuntimeConfig(zero_stage=zero_stage), ranks.world_size)
    assert engine.num_micro_batches == num_micro_batches
    ema = Ema(engine.fragments, [expected["ema"]])
    tensors = load_file(folder / "train/batches.safetensors")
    rows = slice(ranks.rank * rows_per_rank, (ranks.rank + 1) * rows_per_rank)
    batches = (reference_batch(tensors, step, rows) for step in range(12))
    recorder = Recorder(ranks.world_size)
    parts = StepParts(config, optimizer, engine, ema, GivenDraws(tensors, rows), batches, Phases())
    train(TrainState(), parts, [recorder])
    gathered = {}
    for name, values in (("weights", [f.weight for f in engine.fragments]), ("ema", ema.averages[expected["ema"]])):
        whole = gather_parameters(model, engine.fragments, values, is_sharded=engine.is_sharded)
        gathered[name] = {key: tensor.detach().numpy() for key, tensor in whole.items()}
    return {"results": recorder.results, **gathered}


def reference_batch(tensors: dict[str, Tensor], step: int, rows: slice) -> Batch:
    latents = tensors["latents"][step, rows]
    return Batch(
        moments=torch.cat((latents, torch.zeros_like(latents)), dim=1),
        prompt_embeds=tensors["text_embeds"][step, rows],
        input_ids=None,
        is_dropped=torch.zeros(len(latents), dtype=torch.bool),
        sample_ids=torch.arange(len(latents)),
        global_rows=torch.arange(len(latents)),
    )
