"""Whole training runs inside the ranks of a pool."""

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from ifvit.checkpoint.load import Checkpoint, newest_checkpoint
from ifvit.commands.training_run import run_training
from ifvit.config.errors import UserError
from ifvit.runtime.distributed import Ranks
from ifvit.training.fragments import MOMENTS
from ifvit.training.state import NonFiniteError, ReplicaError, StepResult, TrainState
from ifvit.training.stopping import StopHook
from tests.distributed.drawn_samples import drawn_samples, recorded_samples
from tests.drawn_coco import tiny_recipe
from tests.injected_faults import injected

RUN = [
    "model.depth=4",
    "model.fusion={schedule: intermediate, num_image_blocks: 1, num_text_blocks: 1}",
    "ema.decays=[0.9, 0.99]",
    "optimizer.learning_rate=1.0e-3",
    "optimizer.warmup_steps=2",
    "train.global_batch_size=8",
    "train.micro_batch_size=4",
    "train.caption_dropout_prob=0.3",
    "train.max_steps=8",
    "checkpoint.every_steps=4",
    "tracking.log_every_steps=1",
    "tracking.mlflow=false",
]

# Sums over ranks and micro-batches are taken in another order: a few units in the last place of float32 per step.
SUMMATION_ORDER = 2e-6
# Moments are so small that an absolute tolerance for weights would hold anything: a share of their tensor's largest.
MOMENT_SHARE = 1e-5
# What two runs of the same recipe need not have in common.
OF_THE_MACHINE = {"time", "samples_per_second", "model_tflops_per_second", "mfu", "memory_gb"}


def is_of_the_machine(key: str) -> bool:
    """Whether this metric depends on the clock or the machine."""
    return key in OF_THE_MACHINE or key.startswith("seconds_")


def train_run(
    ranks: Ranks,
    shards_root: Path,
    runs_root: Path,
    overrides: list[str],
    signal_rank: int | None = None,
    *,
    faults: str = "",
    records_samples: bool = True,
) -> int | str:
    """The exit code; for the user's mistakes the error's text on rank 0 and code 2 on the others.

    `signal_rank` gets USR1 in the third step.
    """
    recipe = tiny_recipe(Path("/nowhere"), shards_root, *RUN, f"runtime.runs_root={runs_root}", *overrides)
    if ranks.rank == signal_rank:
        send_signal_in_step(3)
    try:
        recording = recorded_samples(samples_file(runs_root, recipe.name)) if records_samples else nullcontext()
        with injected(faults), recording:
            return run_training(recipe, ranks, torch.device("cpu"))
    except (UserError, NonFiniteError, ReplicaError) as error:
        return str(error)
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


def samples_file(runs_root: Path, name: str) -> Path:
    """What a run of a pool was trained on, as `recorded_samples` writes it."""
    return runs_root / name / "drawn_samples.jsonl"


def send_signal_in_step(step: int) -> None:
    original = StopHook.on_step

    def on_step(hook: StopHook, state: TrainState, result: StepResult) -> None:
        if state.step == step:
            StopHook.on_step = original  # type: ignore[method-assign]
            os.kill(os.getpid(), signal.SIGUSR1)
        original(hook, state, result)

    StopHook.on_step = on_step  # type: ignore[method-assign]


def curve(runs_root: Path, name: str = "tiny") -> list[dict[str, Any]]:
    """The logged steps, without what depends on the clock and the machine."""
    lines = (runs_root / name / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{key: value for key, value in record.items() if not is_of_the_machine(key)} for record in records]


def final_checkpoint(runs_root: Path, name: str = "tiny") -> Checkpoint:
    """The newest one."""
    checkpoint = newest_checkpoint(runs_root / name / "checkpoints")
    assert isinstance(checkpoint, Checkpoint)
    return checkpoint


def final_tensors(runs_root: Path, name: str = "tiny") -> dict[str, torch.Tensor]:
    """Weights, both moments and every average of the newest checkpoint, whole."""
    checkpoint = final_checkpoint(runs_root, name)
    return {
        f"{kind}/{parameter}": tensor
        for kind in checkpoint.manifest.kinds
        for parameter, tensor in checkpoint.read_all(kind).items()
    }


def assert_same_samples(runs_root: Path, undisturbed: Path) -> None:
    """The runs below both folders saw the same samples, captions, timesteps and noise in each row of each batch."""
    ours, theirs = (drawn_samples(samples_file(root, "tiny")) for root in (runs_root, undisturbed))
    assert ours == theirs


def assert_same_to_summation_order(runs_root: Path, undisturbed: Path) -> None:
    """The runs below both folders logged and ended the same, but for the last places: each weight, average and element
    of a moment."""
    assert_same_samples(runs_root, undisturbed)
    for ours, theirs in zip(curve(runs_root), curve(undisturbed), strict=True):
        # The difference of two nearly equal weights has fewer digits than they have.
        assert ours.pop("update_norm") == pytest.approx(theirs.pop("update_norm"), rel=1e-3)
        assert ours == pytest.approx(theirs, rel=SUMMATION_ORDER)
    ours_tensors, theirs_tensors = final_tensors(runs_root), final_tensors(undisturbed)
    assert ours_tensors.keys() == theirs_tensors.keys()
    for name, tensor in theirs_tensors.items():
        is_moment = name.partition("/")[0] in MOMENTS
        atol = MOMENT_SHARE * float(tensor.abs().max()) if is_moment else SUMMATION_ORDER
        torch.testing.assert_close(
            ours_tensors[name], tensor, rtol=SUMMATION_ORDER, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_bit_equal(runs_root: Path, undisturbed: Path) -> None:
    """The runs of a pool below both folders saw, logged and ended the same, bit for bit."""
    assert_same_samples(runs_root, undisturbed)
    assert_same_outcome(runs_root, undisturbed)


def assert_same_outcome(runs_root: Path, undisturbed: Path) -> None:
    """The runs below both folders logged and ended the same, bit for bit. What they saw is in the losses alone."""
    assert curve(runs_root) == curve(undisturbed)
    assert final_checkpoint(runs_root).manifest.progress == final_checkpoint(undisturbed).manifest.progress
    ours, theirs = final_tensors(runs_root), final_tensors(undisturbed)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
