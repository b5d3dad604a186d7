"""What skipped steps lead to."""

import math
from typing import Any

import pytest

from ifvit.config.schema import BadStepsConfig
from ifvit.training.bad_steps import BadSteps, KnownStep, Verdict, rolled_back, skipped_batches_after
from ifvit.training.state import BadStepsRecord


def judged(outcomes: str, **options: Any) -> tuple[list[Verdict], BadStepsRecord]:
    """Verdicts after each step of `outcomes`: "x" was skipped, "." was good."""
    bad_steps = BadSteps(BadStepsConfig(**options), BadStepsRecord())
    verdicts = []
    for number, outcome in enumerate(outcomes):
        bad_steps.add(step(number, is_skipped=outcome == "x"))
        verdicts.append(bad_steps.verdict())
    return verdicts, bad_steps.record


def step(batch: int, *, is_skipped: bool = False, loss: float = 1.0, grad_norm: float = 1.0) -> KnownStep:
    return KnownStep(batch + 1, batch, loss, math.nan if is_skipped else grad_norm, is_skipped)


def test_single_bad_steps_are_only_counted() -> None:
    verdicts, record = judged(".x.xx.x")
    assert set(verdicts) == {Verdict.GO_ON}
    assert (record.total, record.in_a_row, record.last_batch) == (4, 1, 6)


def test_so_many_in_a_row_end_the_run() -> None:
    verdicts, record = judged("xx.xxx")
    assert verdicts == [Verdict.GO_ON] * 5 + [Verdict.STOP]
    assert record.total == 5


def test_a_rollback_comes_before_the_end() -> None:
    verdicts, record = judged(".xx", max_in_a_row=2, max_rollbacks=1)
    assert verdicts[-1] is Verdict.ROLL_BACK
    after = rolled_back(record, BadStepsRecord())
    assert (after.total, after.in_a_row, after.rollbacks) == (2, 0, 1)
    again = BadSteps(BadStepsConfig(max_in_a_row=2, max_rollbacks=1), after)
    assert again.verdict() is Verdict.GO_ON
    again.add(step(4, is_skipped=True))
    again.add(step(5, is_skipped=True))
    assert again.verdict() is Verdict.STOP


def test_steps_after_a_demanded_rollback_change_nothing() -> None:
    """They are known or not, by when the run was saved, and are taken back either way."""
    _, at_once = judged(".xx", max_in_a_row=2, max_rollbacks=1)
    for late in (".xx.", ".xxx", ".xx.x"):
        verdicts, record = judged(late, max_in_a_row=2, max_rollbacks=1)
        assert verdicts[-1] is Verdict.ROLL_BACK
        assert record == at_once


def test_the_stream_goes_on_behind_the_last_bad_batch() -> None:
    """Steps 5 to 7 (batches 4 to 6) were bad, the checkpoint is of step 3: step 4 is made on batch 7."""
    record = BadStepsRecord(total=3, in_a_row=3, last_batch=6)
    assert 3 + skipped_batches_after(record, checkpoint_step=3) == 7


def test_good_losses_are_kept_only_for_spikes_and_are_those_of_good_steps() -> None:
    assert judged("....")[1].good_losses == []
    bad_steps = BadSteps(BadStepsConfig(spike_threshold=3.0, spike_window=5), BadStepsRecord())
    for number in range(7):
        bad_steps.add(step(number, loss=float(number), is_skipped=number == 5))
    assert bad_steps.record.good_losses == [1.0, 2.0, 3.0, 4.0, 6.0]


def test_a_rollback_brings_back_the_losses_of_then() -> None:
    record = BadStepsRecord(total=3, in_a_row=3, last_batch=6, good_losses=[1.0, 2.0])
    then = BadStepsRecord(good_losses=[1.0])
    after = rolled_back(record, then)
    assert after.good_losses == then.good_losses and after.good_losses is not then.good_losses


@pytest.mark.parametrize("grad_norm", [math.nan, math.inf])
def test_the_reason_names_a_gradient_that_is_not_finite(grad_norm: float) -> None:
    bad_steps = BadSteps(BadStepsConfig(), BadStepsRecord())
    assert f"its norm is {grad_norm}" in bad_steps.reason(KnownStep(3, 2, 1.0, grad_norm, True))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("spike_threshold", [None, 3.0])
def test_a_loss_that_is_not_finite_is_named_and_never_good(loss: float, spike_threshold: float | None) -> None:
    """The gradient is not finite then, either: the loss is what it comes from."""
    bad_steps = BadSteps(BadStepsConfig(spike_threshold=spike_threshold), BadStepsRecord())
    assert bad_steps.reason(KnownStep(3, 2, loss, math.nan, True)) == f"the loss is not finite (it is {loss})"
    bad_steps.add(KnownStep(3, 2, loss, math.nan, True))
    with pytest.raises(AssertionError, match="step 4 was made though its loss is"):
        bad_steps.add(KnownStep(4, 3, loss, 1.0, False))
    assert (bad_steps.record.total, bad_steps.record.good_losses) == (1, [])


def test_the_reason_names_a_spike_with_its_z() -> None:
    record = BadStepsRecord(good_losses=[1.0, 2.0, 3.0, 4.0, 5.0])
    bad_steps = BadSteps(BadStepsConfig(spike_threshold=3.0, spike_window=5), record)
    assert bad_steps.reason(KnownStep(9, 8, 3 + 14.826, 1.0, True)) == "the loss 17.826 is a spike, z = 10.0"
