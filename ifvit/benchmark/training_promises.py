"""What training promises on this device: updates left out, averages, saves beside it, resumption, digests."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifvit.benchmark.save_time import never_bad
from ifvit.benchmark.small_training import WRITTEN_OUT, AfterEachStep, losses_of, small_training
from ifvit.benchmark.synthetic_training import OneBatch, SyntheticTraining
from ifvit.checkpoint.hook import CheckpointHook
from ifvit.checkpoint.load import newest_checkpoint
from ifvit.checkpoint.resume import restore_state, restore_weights
from ifvit.runtime.distributed import Ranks
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS, training_weights
from ifvit.training.replicas import ReplicaHook
from ifvit.training.state import ReplicaError

CASES = (("bf16", 1), ("fp32", 0), ("bf16", 3), ("bf16", 2))
OVERRIDES = (WRITTEN_OUT, "ema.decays=[0.9]", "checkpoint.asynchronous=true")
STEPS = 3
AVERAGE_TOLERANCE = 1e-6  # relative to the largest value: a few roundings of float32


def check_promises(device: torch.device, folder: Path, num_cases: int) -> dict[str, Any]:
    """By check and case why it failed, or None; checkpoints go below `folder`. The process group must exist."""
    checks: dict[str, str | None] = {}
    for precision, stage in CASES[:num_cases]:
        case = f"{precision} at stage {stage}"
        training, other = (small_training(device, precision, stage, *OVERRIDES) for _ in range(2))
        checks[f"skipped updates, {case}"] = skipping_failure(training)
        checks[f"averages, {case}"] = averaging_failure(training)
        checks[f"saved and resumed, {case}"] = resuming_failure(training, other, folder / f"{precision}-{stage}")
        if stage > 0:  # one rank has nothing to compare its weights with at stage 0
            checks[f"digests, {case}"] = digest_failure(training)
    failures = [f"{name}: {failure}" for name, failure in checks.items() if failure is not None]
    return {"failure": "; ".join(failures) or None, "checks": checks}


def skipping_failure(training: SyntheticTraining) -> str | None:
    """Whether updates that must not be made leave all bits as they are, and the next one is made."""
    training.train_steps(STEPS)
    before = update_state(training)
    told = torch.ones((), dtype=torch.bool, device=training.device)
    skipped: list[Tensor] = []
    watch = AfterEachStep(lambda result: skipped.append(result.is_skipped))
    training.train_steps(1, [watch], lambda state, loss: told)
    if not (skipped.pop() and are_equal(before, update_state(training))):
        return "an update that a hook left out was made"
    not_finite = replace(training.batch, moments=torch.full_like(training.batch.moments, torch.nan))
    training.batches = OneBatch(not_finite)
    training.train_steps(1, [watch])
    training.batches = OneBatch(training.batch)
    if not (skipped.pop() and are_equal(before, update_state(training))):
        return "an update with gradients that are not finite was made"
    training.train_steps(1, [watch])
    after = update_state(training)
    is_finite = all(bool(tensor.isfinite().all()) for tensor in after)
    return None if not skipped.pop() and is_finite and not are_equal(before, after) else "the next update was not made"


def averaging_failure(training: SyntheticTraining) -> str | None:
    """Whether the averages are those of the weights of each step, by float64."""
    ((decay, averages),) = training.ema.averages.items()
    exact = [average.double() for average in averages]

    def follow(_: object) -> None:
        for average, weight in zip(exact, training.ema.weights, strict=True):
            average.lerp_(weight.double(), 1 - decay)

    training.train_steps(STEPS, [AfterEachStep(follow)])
    errors = [(ours - theirs).abs().max() for ours, theirs in zip(averages, exact, strict=True)]
    error = float(torch.stack(errors).max() / max(average.abs().max() for average in exact))
    return None if error <= AVERAGE_TOLERANCE else f"off by {error:.2g}"


def resuming_failure(training: SyntheticTraining, other: SyntheticTraining, folder: Path) -> str | None:
    """Whether what was saved while training went on is what it was, and `other` goes on from it as `training` did."""
    hook = CheckpointHook(folder, training.recipe, engine_of(training), training.ema, Ranks(), never_bad)
    hook.on_start(training.state)
    saved = whole_state(training)
    hook.save(training.state)
    losses = losses_of(training, STEPS)
    hook.finish()
    checkpoint = newest_checkpoint(folder)
    assert checkpoint is not None, f"{hook.saver.failure}: nothing was saved"
    restore_weights(checkpoint, engine_of(other))
    restore_state(checkpoint, other.state, engine_of(other), other.ema)
    checkpoint.close()
    if not are_equal(saved, whole_state(other)):
        return "the state on the disk is not the one that was saved"
    is_same = losses == losses_of(other, STEPS) and are_equal(whole_state(training), whole_state(other))
    return None if is_same else "the resumed training went another way"


def digest_failure(training: SyntheticTraining) -> str | None:
    """Whether one bit that flips in the weights is found, and nothing where none did. `training` is of no use then."""
    hook = ReplicaHook(engine_of(training), Ranks(), every_steps=1)

    def flip(_: object) -> None:
        training_weights(engine_of(training).module)[0].values.view(torch.int16)[:1].bitwise_xor_(1)

    try:
        training.train_steps(1, [hook])
    except ReplicaError as error:
        return f"found where no bit flipped: {error}"
    try:
        training.train_steps(1, [AfterEachStep(flip), hook])
    except ReplicaError:
        return None
    return "a flipped bit was not found"


def update_state(training: SyntheticTraining) -> list[Tensor]:
    """Copies of all that an update changes: float32 weights, moments, and the weights that the model computes with."""
    engine = engine_of(training)
    moments = [engine.moment(fragment, key) for fragment in engine.fragments for key in MOMENTS]
    used = [weight.values for weight in training_weights(engine.module)]
    count = torch.tensor(engine.optimizer_step())
    return [tensor.clone() for tensor in (*(f.weight for f in engine.fragments), *moments, *used, count)]


def whole_state(training: SyntheticTraining) -> list[Tensor]:
    """Copies of all that a resumed run goes on from."""
    averages = [average.clone() for of_decay in training.ema.averages.values() for average in of_decay]
    return [*update_state(training), *averages, torch.tensor(training.state.next_batch)]


def are_equal(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def engine_of(training: SyntheticTraining) -> DeepSpeedEngine:
    assert isinstance(training.engine, DeepSpeedEngine)
    return training.engine
