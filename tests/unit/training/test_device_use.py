"""Speed, arithmetic and its share of the device's peak."""

import time

import pytest
import torch

from ifvit.runtime.distributed import Ranks
from ifvit.training.device_use import DeviceUse
from ifvit.training.state import TrainState
from tests.unit.training.step_results import recipe_of, result_of


def use_after(seconds: float, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, float]:
    """Of 100 samples of a model of 2 GFLOPs in so many seconds."""
    clock = iter((10.0, 10.0 + seconds))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = DeviceUse(recipe_of(*overrides), Ranks(), torch.device("cpu"), forward_gflops=2.0)
    meter.on_start(TrainState(samples_seen=50))
    return meter.metrics(TrainState(samples_seen=150), result_of())


def test_speed_counts_three_forward_passes_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    use = use_after(5.0, monkeypatch)
    assert use["samples_per_second"] == pytest.approx(20)
    assert use["model_tflops_per_second"] == pytest.approx(20 * 3 * 2 / 1000)
    assert use["memory_gb"] > 0.05
    assert "mfu" not in use  # nobody knows this processor's peak


def test_mfu_is_relative_to_the_given_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    assert use_after(5.0, monkeypatch, "tracking.device_peak_tflops=0.5")["mfu"] == pytest.approx(0.12 / 0.5)
