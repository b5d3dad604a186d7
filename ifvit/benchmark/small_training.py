"""A small model's training, as several parts of `gpu_check` need it, and a hook that looks at each step."""

from collections.abc import Callable

import torch

from ifvit.benchmark.checked_cells import cell_recipe
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size
from ifvit.training.state import StepResult, TrainState

SMALL = [
    "model.sample_size=16", "model.hidden_size=128", "model.num_attention_heads=2", "model.depth=4",
    "model.fusion={schedule: intermediate, num_image_blocks: 1, num_text_blocks: 1}", "optimizer.learning_rate=1.0e-3",
    "optimizer.warmup_steps=2",
]  # fmt: skip
BATCH_SIZE = 16
WRITTEN_OUT = "runtime.attention_backend=math"  # a kernel may add in any order: the same steps would give other bits


def small_training(device: torch.device, precision: str, zero_stage: int, *overrides: str) -> SyntheticTraining:
    """The process group must exist."""
    values = [*SMALL, f"train.precision={precision}", f"runtime.zero_stage={zero_stage}", *overrides]
    recipe = with_batch_size(cell_recipe("cross_intermediate", device, *values), BATCH_SIZE)
    return SyntheticTraining(recipe, device, deepspeed_engine)


class AfterEachStep:
    """A hook that calls `look` with what a step gave."""

    def __init__(self, look: Callable[[StepResult], object]) -> None:
        self.look = look

    def on_start(self, state: TrainState) -> None: ...

    def on_step(self, state: TrainState, result: StepResult) -> None:
        self.look(result)

    def on_stop(self, state: TrainState) -> None: ...


def losses_of(training: SyntheticTraining, steps: int) -> list[float]:
    """Train `steps` steps: the loss of each, which stay on the device until then."""
    kept: list[torch.Tensor] = []
    training.train_steps(steps, [AfterEachStep(lambda result: kept.append(result.loss))])
    return torch.stack(kept).tolist()
