"""A few steps of the smallest model on made-up batches, without files, inside the ranks of a pool."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from ifvit.config.schema import DiffusionConfig, ModelConfig, OptimizerConfig, RuntimeConfig, TrainConfig
from ifvit.data.batch import Batch
from ifvit.diffusion.objective import Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.model.uvit import UViT
from ifvit.runtime.distributed import Ranks
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS
from ifvit.training.gathering import gather_parameters
from ifvit.training.loop import StepParts, train
from ifvit.training.phases import Phases
from ifvit.training.state import StepOutcome, StepResult, TrainState
from tests.injected_faults import injected

ROWS, DECAYS = 8, (0.9, 0.5)
# No size is a multiple of two ranks' alignment: parts are padded.
MODEL = ModelConfig.model_validate(
    {
        "sample_size": 6,
        "in_channels": 3,
        "hidden_size": 18,
        "num_attention_heads": 3,
        "depth": 4,
        "fusion": {"schedule": "intermediate", "num_image_blocks": 1, "num_text_blocks": 1},
        "text_hidden_size": 7,
        "num_text_tokens": 5,
    }
)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=1)


class Recorder:
    """Keeps what each step gave, and this rank's weights and moments after it."""

    def __init__(self, ranks: Ranks, engine: DeepSpeedEngine) -> None:
        self.ranks, self.engine = ranks, engine
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.skipped: list[bool] = []
        self.states: list[list[Tensor]] = []

    def on_start(self, state: TrainState) -> None: ...

    def on_step(self, state: TrainState, result: StepResult) -> None:
        loss = result.loss.clone()
        torch.distributed.all_reduce(loss)
        self.losses.append(loss.item() / self.ranks.world_size)
        self.grad_norms.append(result.grad_norm.item())
        self.skipped.append(bool(result.is_skipped))
        fragments = self.engine.fragments
        moments = [self.engine.moment(fragment, key) for fragment in fragments for key in MOMENTS]
        self.states.append([tensor.clone() for tensor in (*(fragment.weight for fragment in fragments), *moments)])

    def on_stop(self, state: TrainState) -> None: ...


def train_tiny(
    ranks: Ranks,
    zero_stage: int = 1,
    micro_batch_size: int = 2,
    rows: int = ROWS,
    faults: str = "",
    skipped_step: int | None = None,
    updates_before: int = 0,
    steps: int = 4,
    train_fields: dict[str, Any] | None = None,
    runtime_fields: dict[str, Any] | None = None,
    decays: Sequence[float] = DECAYS,
    watching: AbstractContextManager[object] = nullcontext(),  # noqa: B008 (has no state)
) -> dict[str, Any]:
    """By name: losses, grad_norms, skipped, is_unchanged (by step: weights and moments as after the step before),
    optimizer_step, and whole tensors: weights, exp_avg, exp_avg_sq, each decay. `skipped_step` counts from 1; the steps
    are made inside `watching`."""
    config = TrainConfig.model_validate(
        {"max_steps": steps, "global_batch_size": rows, "micro_batch_size": micro_batch_size, "precision": "fp32"}
        | (train_fields or {})
    )
    runtime = RuntimeConfig.model_validate({"zero_stage": zero_stage} | (runtime_fields or {}))
    torch.manual_seed(0)
    engine = DeepSpeedEngine(UViT(MODEL), config, OPTIMIZER, runtime, ranks.world_size)
    if updates_before:
        engine.create_moments(updates_before)
    if skipped_step is not None:
        skip_in_step(engine, skipped_step)
    ema = Ema(engine.fragments, decays)
    local_rows = rows // ranks.world_size
    batch = made_up_batch(rows).rows(ranks.rank * local_rows, (ranks.rank + 1) * local_rows)
    null_prompt_embeds = torch.zeros(MODEL.num_text_tokens, MODEL.text_hidden_size)
    objective = Objective(NoiseSchedule(DiffusionConfig()), 1.0, null_prompt_embeds, seed=0, global_batch_size=rows)
    recorder = Recorder(ranks, engine)
    batches = (batch for _ in range(steps))
    parts = StepParts(config, OPTIMIZER, engine, ema, objective, batches, Phases())
    with injected(faults), watching:
        train(TrainState(), parts, [recorder])
    states = recorder.states
    values = {"weights": [fragment.weight for fragment in engine.fragments]}
    values |= {key: [engine.moment(fragment, key) for fragment in engine.fragments] for key in MOMENTS}
    values |= {str(decay): averages for decay, averages in ema.averages.items()}
    return {
        "losses": recorder.losses,
        "grad_norms": recorder.grad_norms,
        "skipped": recorder.skipped,
        "is_unchanged": [all(map(torch.equal, before, after)) for before, after in pairwise(states)],
        "optimizer_step": engine.optimizer_step(),
        "is_offloaded": engine.engine.zero_use_cpu_optimizer(),
        "compiled_graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    } | {
        kind: gather_parameters(engine.module, engine.fragments, tensors, is_sharded=engine.is_sharded)
        for kind, tensors in values.items()
    }


def skip_in_step(engine: DeepSpeedEngine, number: int) -> None:
    original, steps_done = engine.step, 0

    def step(learning_rate: float, must_skip: Tensor | None = None) -> StepOutcome:
        nonlocal steps_done
        steps_done += 1
        return original(learning_rate, torch.tensor(steps_done == number))

    engine.step = step  # type: ignore[method-assign]


def made_up_batch(rows: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        moments=torch.randn(rows, 2 * MODEL.in_channels, MODEL.sample_size, MODEL.sample_size, generator=generator),
        prompt_embeds=torch.randn(rows, MODEL.num_text_tokens, MODEL.text_hidden_size, generator=generator),
        input_ids=None,
        is_dropped=torch.zeros(rows, dtype=torch.bool),
        sample_ids=torch.arange(rows),
        global_rows=torch.arange(rows),
    )
