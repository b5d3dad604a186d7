"""Losses of a small model over the same steps: in bf16 and float32, again, and at every ZeRO stage."""

from typing import Any

import torch

from ifvit.benchmark.checked_cells import cell_recipe
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size
from ifvit.training.state import StepResult, TrainState

SMALL = [
    "model.sample_size=16", "model.hidden_size=128", "model.num_attention_heads=2", "model.depth=4",
    "model.fusion={schedule: intermediate, num_image_blocks: 1, num_text_blocks: 1}", "optimizer.warmup_steps=2",
]  # fmt: skip
BATCH_SIZE = 16
STAGE_TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2}  # of a loss; measured on a CPU: 1.2e-7, and in bf16 1.6e-4 at stage 3


class Losses:
    """Keeps each step's loss on the device."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []

    def on_start(self, state: TrainState) -> None: ...

    def on_step(self, state: TrainState, result: StepResult) -> None:
        self.tensors.append(result.loss)

    def on_stop(self, state: TrainState) -> None: ...


def losses(device: torch.device, steps: int, precision: str, zero_stage: int) -> list[float]:
    """Of `steps` steps of the small model."""
    overrides = [*SMALL, f"train.precision={precision}", f"runtime.zero_stage={zero_stage}"]
    recipe = with_batch_size(cell_recipe("cross_intermediate", device, *overrides), BATCH_SIZE)
    training = SyntheticTraining(recipe, device, deepspeed_engine)
    kept = Losses()
    training.run_window(steps, [kept])
    return torch.stack(kept.tensors).tolist()


def check_parity(device: torch.device, steps: int) -> dict[str, Any]:
    """bf16 twice, and float32."""
    curves = {
        "bf16": losses(device, steps, "bf16", 1),
        "bf16 again": losses(device, steps, "bf16", 1),
        "fp32": losses(device, steps, "fp32", 1),
    }
    repeats = curves["bf16"] == curves["bf16 again"]
    return {
        "failure": None if repeats else "the same steps in bf16 gave other losses",
        "steps": steps,
        "bf16_repeats_bit_for_bit": repeats,
        "max_difference_bf16_fp32": largest_difference(curves["bf16"], curves["fp32"]),
        "last_losses": {run: curve[-1] for run, curve in curves.items()},
    }


def check_zero_stages(device: torch.device, steps: int) -> dict[str, Any]:
    """The largest difference of a loss from stage 1's, by precision and stage; stage 0 has no bf16."""
    differences: dict[str, dict[str, float]] = {}
    for precision, stages in (("fp32", (0, 2, 3)), ("bf16", (2, 3))):
        reference = losses(device, steps, precision, 1)
        differences[precision] = {
            str(stage): largest_difference(losses(device, steps, precision, stage), reference) for stage in stages
        }
    far = {
        f"{precision} at stage {stage}: {difference:.2g}"
        for precision, of_stages in differences.items()
        for stage, difference in of_stages.items()
        if not difference <= STAGE_TOLERANCES[precision]
    }
    return {"failure": ", ".join(sorted(far)) or None, "steps": steps, "max_difference_from_stage_1": differences}


def largest_difference(ours: list[float], theirs: list[float]) -> float:
    return max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
