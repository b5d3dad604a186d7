"""Numbers gone bad, on one of two ranks: skipped by all ranks together, logged, left behind by a rollback."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifvit.checkpoint.layout import saved_steps, step_folder
from tests.distributed.training_runs import curve, final_checkpoint, final_tensors
from tests.faults.faulty_runs import count_reductions, json_lines
from tests.forged_shards import forge_members, reseal
from tests.training_fixtures import Train

ROLLBACK = ["train.bad_steps.max_in_a_row=2", "train.bad_steps.max_rollbacks=1"]
# Batches number 5 and 6: of steps 6 and 7 before the rollback to step 4, of none after it.
BAD_BATCHES = "step.gradient@1:6-7=nan"
LAST_GRID = ["sampling.prompts=[one dog]", "sampling.num_inference_steps=3"]
Faulty = Callable[..., list[int | str]]


@pytest.fixture(scope="module")
def faulty(train: Train) -> Faulty:
    """`faulty(runs_root, faults, *overrides)`: the outcome by rank of a run on two ranks."""

    def run(runs_root: Path, faults: str, *overrides: str, **arguments: Any) -> list[int | str]:
        return train(2, runs_root, *overrides, faults=faults, **arguments)

    return run


def bad_steps(runs_root: Path) -> list[dict[str, Any]]:
    return json_lines(runs_root / "tiny/logs/bad_steps.jsonl")


def assert_same_but_for_counts(runs_root: Path, other: Path) -> None:
    """The same curve and the same final state, bit for bit; only how often something was bad differs."""
    counts = ("bad_steps", "rollbacks")
    ours, theirs = (
        [{k: v for k, v in each.items() if k not in counts} for each in curve(root)] for root in (runs_root, other)
    )
    assert ours == theirs
    ours_tensors, theirs_tensors = final_tensors(runs_root), final_tensors(other)
    assert [name for name in theirs_tensors if not torch.equal(ours_tensors[name], theirs_tensors[name])] == []


def assert_step_4_is_skipped(faulty: Faulty, runs_root: Path, fault: str, *overrides: str) -> dict[str, Any]:
    """A run of six steps with `fault` in the fourth, a start before it and one after; gives the step's record."""
    assert faulty(runs_root, "", *overrides, "train.max_steps=3") == [0, 0]
    before = final_tensors(runs_root)
    assert faulty(runs_root, fault, *overrides, "train.max_steps=4") == [0, 0]
    after = final_tensors(runs_root)
    averages = {name for name in before if name.startswith("ema-")}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and changed <= averages  # an average moves towards weights that stay
    (line,) = bad_steps(runs_root)
    assert (line["step"], line["batch"]) == (4, 3)
    assert [len(ids) for ids in line["sample_ids_by_rank"]] == [4, 4]
    assert faulty(runs_root, "", *overrides, "train.max_steps=6") == [0, 0]
    assert [record["bad_steps"] for record in curve(runs_root)] == [0, 0, 0, 0, 1, 1]
    return line


@pytest.mark.fault(
    "F14",
    injected="a gradient of NaN or infinity on rank 1 of two, ZeRO stages 0, 1 and 3",
    detected="its norm over all ranks is not finite",
    recovered="all ranks skip the step: weights and moments as before, bit for bit; sample ids logged",
    lost="the step",
)
@pytest.mark.parametrize(
    "zero_stage, precision, value", [(0, "fp32", "inf"), (1, "bf16", "nan"), (3, "fp32", "nan"), (3, "bf16", "inf")]
)
def test_a_gradient_that_is_no_number_is_skipped_by_all_ranks(
    faulty: Faulty, tmp_path: Path, zero_stage: int, precision: str, value: str
) -> None:
    overrides = [f"runtime.zero_stage={zero_stage}", f"train.precision={precision}"]
    line = assert_step_4_is_skipped(faulty, tmp_path, f"step.gradient@1:4={value}", *overrides)
    assert "the gradient is not finite" in line["reason"] and line["grad_norm"] is None


@pytest.mark.fault(
    "F14",
    injected="a loss of NaN or infinity on rank 1 of two, whose gradients are finite; two micro-batches per step",
    detected="the gradients are made NaN with it, and so is their norm over all ranks",
    recovered="all ranks skip the step: weights and moments as before, bit for bit; sample ids logged",
    lost="the step",
)
@pytest.mark.parametrize(
    "zero_stage, precision, value, watches_for_spikes",
    [(0, "fp32", "nan", True), (1, "bf16", "inf", False), (3, "bf16", "inf", True)],
)
def test_a_loss_that_is_no_number_is_skipped_by_all_ranks(
    faulty: Faulty, tmp_path: Path, zero_stage: int, precision: str, value: str, watches_for_spikes: bool
) -> None:
    overrides = [f"runtime.zero_stage={zero_stage}", f"train.precision={precision}", "train.micro_batch_size=2"]
    if watches_for_spikes:
        overrides += ["train.bad_steps.spike_threshold=30", "train.bad_steps.spike_window=5"]
    line = assert_step_4_is_skipped(faulty, tmp_path, f"step.loss@1:4={value}", *overrides)
    assert line["reason"] == f"the loss is not finite (it is {value})"
    assert [loss is None for loss in line["loss_by_rank"]] == [False, True]
    good_losses = final_checkpoint(tmp_path).manifest.progress.bad_steps.good_losses
    assert [math.isfinite(loss) for loss in good_losses] == [True] * (5 if watches_for_spikes else 0)


@pytest.mark.fault(
    "F14",
    injected="NaN gradients in two steps in a row, one rollback allowed, ZeRO stages 0, 1 and 3",
    detected="train.bad_steps.max_in_a_row",
    recovered="weights, moments and averages of the checkpoint, the batches up to the last bad one left out: exact",
    lost="the steps since the checkpoint",
)
@pytest.mark.parametrize("zero_stage, precision", [(0, "fp32"), (1, "bf16"), (3, "bf16"), (2, "fp32")])
def test_a_rollback_is_the_run_that_never_saw_the_bad_batches(
    train: Train, faulty: Faulty, tmp_path: Path, zero_stage: int, precision: str
) -> None:
    overrides = [*ROLLBACK, f"runtime.zero_stage={zero_stage}", f"train.precision={precision}"]
    assert faulty(tmp_path / "rolled_back", BAD_BATCHES, *overrides) == [0, 0]
    assert train(2, tmp_path / "without", *overrides, "train.max_steps=4") == [0, 0]
    manifest = step_folder(tmp_path / "without/tiny/checkpoints", 4) / "manifest.json"
    reseal(manifest, lambda values: values["progress"].update(skipped_batches=3))
    assert train(2, tmp_path / "without", *overrides) == [0, 0]
    assert_same_but_for_counts(tmp_path / "rolled_back", tmp_path / "without")
    counts = [(record["bad_steps"], record["rollbacks"]) for record in curve(tmp_path / "rolled_back")]
    assert counts == [(0, 0)] * 4 + [(2, 1)] * 4
    (line,) = json_lines(tmp_path / "rolled_back/tiny/logs/rollbacks.jsonl")
    bad = bad_steps(tmp_path / "rolled_back")
    assert (line["from_step"], line["to_step"], line["bad_steps"]) == (8, 4, [6, 7])
    assert (line["first_skipped_batch"], line["last_skipped_batch"]) == (4, 6)
    assert line["sample_ids"] == [each for step in bad for ids in step["sample_ids_by_rank"] for each in ids]
    discarded = json_lines(tmp_path / "rolled_back/tiny/metrics.discarded.jsonl")
    assert [record["step"] for record in discarded] == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("last_step", "signals", "code", "next_max_steps"),
    [(6, "", 0, 8), (7, "; step.data@1:7=usr1", 75, 7)],
)
def test_a_run_interrupted_among_bad_steps_goes_on_exactly(
    faulty: Faulty, tmp_path: Path, last_step: int, signals: str, code: int, next_max_steps: int
) -> None:
    """Saved behind the first bad step; or behind the second, where the rollback is due: there nothing may lead back,
    and the run is not done, however many steps it is given."""
    assert faulty(tmp_path / "whole", BAD_BATCHES, *ROLLBACK) == [0, 0]
    max_steps = 8 if signals else last_step
    overrides = [*ROLLBACK, *LAST_GRID]
    first = faulty(tmp_path / "parts", BAD_BATCHES + signals, *overrides, f"train.max_steps={max_steps}")
    assert first == [code, code]
    assert saved_steps(tmp_path / "parts/tiny/checkpoints") == [4, last_step]
    for max_steps in dict.fromkeys([next_max_steps, 8]):
        assert faulty(tmp_path / "parts", BAD_BATCHES, *overrides, f"train.max_steps={max_steps}") == [0, 0]
        assert final_checkpoint(tmp_path / "parts").manifest.progress.bad_steps.in_a_row == 0
        assert (tmp_path / f"parts/tiny/samples/step-{max_steps:08d}.png").is_file()
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert_same_but_for_counts(tmp_path / "parts", tmp_path / "whole")


def test_bad_steps_at_the_very_end_are_taken_back_too(faulty: Faulty, tmp_path: Path) -> None:
    """No step follows that would tell of the last one, and no checkpoint is due there."""
    assert faulty(tmp_path, BAD_BATCHES, *ROLLBACK, "train.max_steps=7") == [0, 0]
    progress = final_checkpoint(tmp_path).manifest.progress
    assert (progress.step, progress.skipped_batches, progress.bad_steps.in_a_row) == (7, 3, 0)
    (line,) = json_lines(tmp_path / "tiny/logs/rollbacks.jsonl")
    assert (line["from_step"], line["to_step"], line["bad_steps"]) == (7, 4, [6, 7])


@pytest.mark.fault(
    "F14",
    injected="NaN gradients in three steps in a row, no rollback allowed",
    detected="train.bad_steps.max_in_a_row, on all ranks",
    recovered="the run ends with exit code 3 and says where the sample ids are",
    lost="the steps since the checkpoint",
)
def test_without_a_rollback_left_the_run_ends_unsaved(faulty: Faulty, tmp_path: Path) -> None:
    bad_from_step_3 = "step.gradient@1:3-99=nan"
    messages = faulty(tmp_path, bad_from_step_3, "checkpoint.every_steps=1")
    assert messages[0] == messages[1]
    assert "3 bad steps in a row, up to step 5, where the gradient is not finite" in str(messages[0])
    assert "train.bad_steps.max_rollbacks = 0" in str(messages[0])
    assert str(tmp_path / "tiny/logs/bad_steps.jsonl") in str(messages[0])
    assert saved_steps(tmp_path / "tiny/checkpoints") == [1, 2]
    assert [line["step"] for line in bad_steps(tmp_path)] == [3, 4, 5]
    # Rollbacks may be allowed afterwards; what is bad from one checkpoint on uses them up.
    messages = faulty(tmp_path, bad_from_step_3, "train.bad_steps.max_rollbacks=1")
    assert "up to step 5, where" in str(messages[1])
    (line,) = json_lines(tmp_path / "tiny/logs/rollbacks.jsonl")
    assert (line["to_step"], line["last_skipped_batch"]) == (2, 4)


def test_a_rollback_without_a_checkpoint_ends_the_run(faulty: Faulty, tmp_path: Path) -> None:
    messages = faulty(tmp_path, "step.gradient@0:1-3=nan", *ROLLBACK)
    assert messages[0] == messages[1] and "no checkpoint from before them" in str(messages[0])


SPIKES = ["train.bad_steps.spike_threshold=30", "train.bad_steps.spike_window=5", "train.max_steps=10"]


@pytest.mark.fault(
    "F14",
    injected="a loss forty times too large on rank 1; before that, one of NaN whose gradient is finite",
    detected="its robust z-score over the last good losses; that it is not finite",
    recovered="all ranks skip the step; sample ids logged",
    lost="the step",
)
def test_a_loss_spike_is_skipped_by_all_ranks(faulty: Faulty, tmp_path: Path) -> None:
    assert faulty(tmp_path, "step.loss@1:2=nan; step.loss@1:8=scale 40", *SPIKES) == [0, 0]
    not_finite, line = bad_steps(tmp_path)
    assert (not_finite["step"], line["step"]) == (2, 8)
    assert "the loss is not finite" in not_finite["reason"]
    assert "is a spike, z = " in line["reason"]
    assert line["loss_by_rank"][1] > 10 * line["loss_by_rank"][0]
    assert [record["bad_steps"] for record in curve(tmp_path)] == [0] * 2 + [1] * 6 + [2] * 2


def test_a_run_that_watches_for_spikes_resumes_exactly(faulty: Faulty, tmp_path: Path) -> None:
    """The losses that a spike is measured by are saved: those of one start would be too few."""
    spike = "step.loss@1:8=scale 40"
    assert faulty(tmp_path / "whole", spike, *SPIKES) == [0, 0]
    for last_step in (4, 7, 8):
        assert faulty(tmp_path / "parts", spike, *SPIKES, f"train.max_steps={last_step}") == [0, 0]
    assert faulty(tmp_path / "parts", spike, *SPIKES) == [0, 0]
    assert len(bad_steps(tmp_path / "parts")) == 1
    assert_same_but_for_counts(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.fault(
    "F14",
    injected="a NaN latent in a shard whose digests are right",
    detected="the loss of the batch with it is not finite",
    recovered="all ranks skip that batch; its sample ids are logged",
    lost="the steps with that sample",
)
def test_a_nan_latent_in_a_shard_is_skipped_with_its_batch(faulty: Faulty, shards_root: Path, tmp_path: Path) -> None:
    shutil.copytree(shards_root, tmp_path / "shards")
    bad_id = 10

    def edit(name: str, payload: bytearray) -> None:
        if name == f"{bad_id:012d}.latents.npy":
            payload[-2:] = np.float16(np.nan).tobytes()

    forge_members(tmp_path / "shards/train", 0, edit)
    small_batches = ["train.global_batch_size=2", "train.micro_batch_size=1"]
    assert faulty(tmp_path, "", *small_batches, shards_root=tmp_path / "shards") == [0, 0]
    lines = bad_steps(tmp_path)
    assert len(lines) in (1, 2)  # in 8 steps of 2 of the 10 samples
    for line in lines:
        assert "the loss is not finite" in line["reason"]
        (with_nan,) = (rank for rank, loss in enumerate(line["loss_by_rank"]) if loss is None)
        assert line["sample_ids_by_rank"][with_nan] == [bad_id]
    assert all(tensor.isfinite().all() for tensor in final_tensors(tmp_path).values())


def test_a_healthy_run_pays_nothing_and_stays_the_same(train: Train, tmp_path: Path) -> None:
    """Neither the default nor watching for spikes changes a bit; only the latter reduces the loss, once per step."""
    rarely_logged = ["tracking.log_every_steps=100", "train.max_steps=6"]
    counts = {}
    for name, options in (("default", []), ("watched", ["train.bad_steps.spike_threshold=1000"])):
        counts[name] = train(2, tmp_path / name, *rarely_logged, *options, function=count_reductions)
    assert [watched - default for watched, default in zip(counts["watched"], counts["default"], strict=True)] == [6, 6]
    assert_same_but_for_counts(tmp_path / "default", tmp_path / "watched")
    assert not (tmp_path / "default/tiny/logs/bad_steps.jsonl").exists()
