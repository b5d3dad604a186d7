"""The training loop: fetch, loss, backward, step, EMA, hooks. Nothing else belongs in this file.

The engine owns precision and sharding. Hooks own logs, previews, checkpoints, stopping.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ifvit.config.schema import OptimizerConfig, TrainConfig
from ifvit.data.batch import Batch
from ifvit.diffusion.objective import Objective
from ifvit.runtime.fault_injection import fault_tensor
from ifvit.training.ema import Ema
from ifvit.training.optimizer import learning_rate_at
from ifvit.training.phases import BACKWARD, DATA, FORWARD, HOOKS, OPTIMIZER, Phases
from ifvit.training.state import Hook, StepOutcome, StepResult, TrainState


class Engine(Protocol):
    """What the loop needs of DeepSpeed. The plain loop that tests and benchmarks compare with has the same shape."""

    model: nn.Module
    num_micro_batches: int

    def backward(self, micro_loss: Tensor) -> None: ...
    def step(self, learning_rate: float, must_skip: Tensor | None = None) -> StepOutcome: ...


def never(state: TrainState, loss: Tensor) -> Tensor | None:
    """No step is skipped for its loss."""
    return None


@dataclass(frozen=True)
class StepParts:
    """What a step is made with."""

    config: TrainConfig
    optimizer: OptimizerConfig
    engine: Engine
    ema: Ema
    objective: Objective
    batches: Iterator[Batch]  # this rank's rows of each global batch, in order, on the training device
    phases: Phases
    must_skip: Callable[[TrainState, Tensor], Tensor | None] = never  # given this rank's loss, before the update


def train(state: TrainState, parts: StepParts, hooks: Sequence[Hook]) -> None:
    """Advance `state` until `parts.config.max_steps`, or until a hook gives a `stop_reason`.

    The last hook may set `state` and all that hangs on it back to an earlier step.
    """
    config, engine, objective, phases = parts.config, parts.engine, parts.objective, parts.phases
    for hook in hooks:
        hook.on_start(state)
    while state.step < config.max_steps and state.stop_reason is None:
        number = state.step + 1
        phases.enter(DATA, number)
        batch = next(parts.batches)
        draws = objective.draw(state.next_batch, batch)
        loss = torch.zeros((), device=batch.moments.device)
        sample_losses = []
        for start in range(0, len(batch.moments), config.micro_batch_size):
            rows = start, start + config.micro_batch_size
            phases.enter(FORWARD, number)
            losses = objective.losses(engine.model, batch.rows(*rows), draws.rows(*rows))
            micro_loss = losses.mean / engine.num_micro_batches
            fault_tensor("step.loss", micro_loss.detach(), state.next_batch + 1)
            sample_losses.append(losses.of_samples)
            phases.enter(BACKWARD, number)
            micro_loss.register_hook(partial(fault_tensor, "step.gradient", step=state.next_batch + 1))
            engine.backward(micro_loss)
            loss += micro_loss.detach()
        phases.enter(OPTIMIZER, number)
        learning_rate = learning_rate_at(state.step, parts.optimizer)
        outcome = engine.step(learning_rate, parts.must_skip(state, loss))
        parts.ema.update()
        state.step += 1
        state.samples_seen += config.global_batch_size
        result = StepResult(
            loss,
            outcome.grad_norm,
            outcome.is_skipped,
            learning_rate,
            torch.cat(sample_losses),
            draws.timesteps,
            batch.sample_ids,
        )
        phases.enter(HOOKS, number)
        for hook in hooks:
            hook.on_step(state, result)
    for hook in hooks:
        hook.on_stop(state)
