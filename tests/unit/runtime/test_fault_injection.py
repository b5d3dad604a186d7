"""Faults happen where, when and to whom the variable says, and nowhere without it."""

import errno
import signal

import pytest
import torch

from ifvit.runtime.fault_injection import VARIABLE, fault_point, fault_tensor


def test_nothing_happens_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    fault_point("step.data", 1)
    values = torch.ones(3)
    fault_tensor("step.data", values, 1)
    assert values.tolist() == [1, 1, 1]


def test_a_fault_is_of_one_point_rank_and_range_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "step.data@1:3-4=eio; step.hooks=enospc")
    monkeypatch.setenv("RANK", "0")
    fault_point("step.data", 3)
    monkeypatch.setenv("RANK", "1")
    fault_point("step.data", 2)
    fault_point("step.data", 5)
    fault_point("step.data")
    fault_point("step.forward", 3)
    for step in (3, 4):
        with pytest.raises(OSError, match="injected at step") as raised:
            fault_point("step.data", step)
        assert raised.value.errno == errno.EIO
    with pytest.raises(OSError, match="injected") as raised:
        fault_point("step.hooks")
    assert raised.value.errno == errno.ENOSPC


def test_a_signal_reaches_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[int] = []
    previous = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        monkeypatch.setenv(VARIABLE, "step.data=usr2")
        fault_point("step.data", 1)
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert received == [signal.SIGUSR2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_changed_in_place(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.ones(3, dtype=dtype)
    monkeypatch.setenv(VARIABLE, "step.data=scale 2.5")
    fault_tensor("step.data", values)
    assert values.tolist() == [2.5, 2.5, 2.5]
    monkeypatch.setenv(VARIABLE, "step.data=flip")
    fault_tensor("step.data", values)
    assert values[0] != 2.5 and abs(values[0] - 2.5) < 0.02
    assert values[1:].tolist() == [2.5, 2.5]
    monkeypatch.setenv(VARIABLE, "step.data=nan")
    fault_tensor("step.data", values)
    assert values.isnan().all()


@pytest.mark.parametrize("wrong", ["step.data", "step.unknown=kill", "step.data@x=kill"])
def test_what_cannot_be_read_is_no_fault_at_all(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, wrong)
    with pytest.raises(AssertionError, match=VARIABLE):
        fault_point("step.data", 1)
