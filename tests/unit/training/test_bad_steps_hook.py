"""What the host learns of skipped steps, and when. On one rank."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ifvit.config.schema import BadStepsConfig
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.run_writer import RunWriter
from ifvit.training.bad_steps_hook import BadStepsHook
from ifvit.training.state import BadStepsRecord, NonFiniteError, StepResult, TrainState


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Steps:
    """Makes steps as the loop does; `losses` that are not finite are skipped."""

    def __init__(self, log_file: Path, **options: Any) -> None:
        self.state = TrainState()
        self.hook = BadStepsHook(BadStepsConfig(**options), Ranks(), log_file, RunWriter(log_file.parent))
        self.hook.on_start(self.state)

    def make(self, *losses: float) -> list[bool | None]:
        """What `must_skip` said of each."""
        answers: list[bool | None] = []
        for number in losses:
            loss = torch.tensor(number)
            must_skip = self.hook.must_skip(self.state, loss)
            answers.append(None if must_skip is None else bool(must_skip))
            is_skipped = torch.tensor(bool(must_skip) or not math.isfinite(number))
            self.state.step += 1
            sample_ids = torch.tensor([self.state.step, 100 + self.state.step])
            result = StepResult(
                loss=loss,
                grad_norm=loss.clone(),
                is_skipped=is_skipped,
                learning_rate=0.1,
                sample_losses=loss.expand(2),
                timesteps=torch.tensor([3, 900]),
                sample_ids=sample_ids,
            )
            self.hook.on_step(self.state, result)
        return answers


def test_a_step_is_known_before_the_next_update_and_no_sooner(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log")
    steps.make(1.0, math.nan)
    assert steps.state.bad_steps.total == 0
    steps.hook.must_skip(steps.state, torch.tensor(1.0))
    assert (steps.state.bad_steps.total, steps.state.bad_steps.last_batch) == (1, 1)


def test_a_save_waits_for_the_newest_step(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log")
    steps.make(1.0)
    assert steps.hook.settle(steps.state)
    steps.make(math.nan)
    assert not steps.hook.settle(steps.state)
    assert steps.state.bad_steps.in_a_row == 1
    steps.make(1.0)
    assert steps.hook.settle(steps.state)


def test_a_skipped_step_is_logged_with_its_samples_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(tmp_path / "log")
    steps.state.skipped_batches = 10
    steps.make(1.0, math.inf, 1.0)
    (record,) = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert (record["step"], record["batch"], record["sample_ids_by_rank"]) == (2, 11, [[2, 102]])
    assert record["loss"] is record["grad_norm"] is None  # JSON has no infinity
    assert capsys.readouterr().err.count("step 2 is skipped: the loss is not finite") == 1


def test_the_last_step_is_logged_too(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log")
    steps.make(math.nan)
    steps.hook.on_stop(steps.state)
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_too_many_end_training_at_the_step_after(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log", max_in_a_row=2)
    steps.make(1.0, math.nan, math.nan)
    with pytest.raises(NonFiniteError, match=r"2 bad steps in a row, up to step 3, where the loss is not finite"):
        steps.make(1.0)


def test_too_many_are_not_saved(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log", max_in_a_row=2)
    steps.make(math.nan, math.nan)
    with pytest.raises(NonFiniteError, match="max_rollbacks = 0"):
        steps.hook.settle(steps.state)


def test_a_run_that_ended_with_too_many_ends_again(tmp_path: Path) -> None:
    hook = BadStepsHook(BadStepsConfig(max_in_a_row=2), Ranks(), tmp_path / "log", RunWriter(tmp_path))
    state = TrainState(step=7, skipped_batches=3, bad_steps=BadStepsRecord(total=2, in_a_row=2, last_batch=8))
    with pytest.raises(NonFiniteError, match="2 bad steps in a row, up to step 6;"):
        hook.on_start(state)


def test_spikes_are_measured_by_the_losses_known_by_then(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log", spike_threshold=10.0, spike_window=5)
    assert steps.make(1.0, 1.1, 0.9, 1.2) == [False] * 4
    assert steps.make(50.0) == [False]  # four losses are too few
    assert steps.make(50.0, 1.0) == [True, False]  # five are enough, and one of 50 does not move their median
    assert steps.state.bad_steps.good_losses == [1.0, pytest.approx(1.1), pytest.approx(0.9), pytest.approx(1.2), 50.0]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("num_known", [0, 5])
def test_a_loss_that_is_not_finite_is_skipped_also_while_few_losses_are_known(
    tmp_path: Path, num_known: int, loss: float
) -> None:
    steps = Steps(tmp_path / "log", spike_threshold=10.0, spike_window=5)
    steps.make(*[1.0, 1.1, 0.9, 1.2, 1.0][:num_known])
    assert steps.make(loss, 1.0) == [True, False]


def test_losses_are_not_looked_at_unless_asked(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log")
    assert steps.make(*[1.0] * 30, 1e9) == [None] * 31
    assert steps.state.bad_steps.good_losses == []
