"""Which attention backend a process uses: the one the recipe names, or the fastest that is right."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ifvit.config.errors import UserError
from ifvit.config.schema import ModelConfig
from ifvit.model.attention import BACKENDS, activate
from ifvit.model.attention_cache import AttentionCache, cache_key
from ifvit.model.attention_check import (
    AttentionCall,
    attention_calls,
    backend_failure,
    make_probes,
    output_and_gradients,
)

# `auto` takes the fastest of these on a GPU; on a CPU, where torch has one kernel, the first that is right.
CANDIDATES = {"cuda": ("xformers", "flash", "cudnn", "efficient", "math"), "cpu": ("sdpa", "math")}
NOT_IN_FLOAT32 = {"cuda": ("flash", "cudnn"), "cpu": ()}  # kernels that there are in half precision alone
CPU_BATCH_SIZE = 2  # a CPU's kernel is the same at any batch size, and training is slow enough there
WARM_UP, REPETITIONS = 3, 10


@dataclass(frozen=True)
class AttentionChoice:
    """The backend in use and why.

    Attributes:
        backend: a key of BACKENDS.
        reason: in a few words.
        seconds: by backend, of one step's attention, forward and backward; empty where nothing was timed.
        rejected: by backend, why it cannot be used.
        notices: lines for the user.
    """

    backend: str
    reason: str
    seconds: dict[str, float]
    rejected: dict[str, str]
    notices: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """All but the notices, as JSON has it."""
        return {name: value for name, value in asdict(self).items() if name != "notices"}


def choose_for_training(
    name: str,
    config: ModelConfig,
    micro_batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
    cache_folder: Path,
    earlier: str | None = None,
) -> AttentionChoice:
    """The backend for a training run; nothing is activated.

    `name` is a key of BACKENDS, or "auto": then `earlier`, which the run had before, if it is right, so that a resume
    is exact; else what `cache_folder` says was fastest, if it is right; else the fastest of those that are right, which
    is kept there. Raises UserError when a backend asked for by name does not work.
    """
    calls = attention_calls(config, CPU_BATCH_SIZE if device.type == "cpu" else micro_batch_size)
    if name != "auto":
        check_backend(name, calls, dtype, device)
        return AttentionChoice(name, "named in the recipe", {}, {})
    rejected: dict[str, str] = {}
    if earlier in BACKENDS:
        failure = backend_failure(earlier, calls, dtype, device)
        if failure is None:
            return AttentionChoice(earlier, "as this run had before", {}, {})
        rejected[earlier] = failure
    candidates = [candidate for candidate in CANDIDATES[device.type] if candidate not in rejected]
    if not is_timed(device):
        return first_right(candidates, calls, dtype, device, rejected)
    cache = AttentionCache(cache_folder, cache_key(calls, dtype, device))
    kept = cache.read()
    if kept is not None and kept.backend in candidates and not backend_failure(kept.backend, calls, dtype, device):
        notices = (*cache.notices, *rejections(kept.rejected))
        return AttentionChoice(kept.backend, "the fastest when it was timed", kept.seconds, kept.rejected, notices)
    return fastest(candidates, calls, dtype, device, rejected, cache)


def first_right(
    candidates: Sequence[str],
    calls: Counter[AttentionCall],
    dtype: torch.dtype,
    device: torch.device,
    rejected: dict[str, str],
) -> AttentionChoice:
    """The first of `candidates` that works; nothing is timed."""
    for candidate in candidates:
        failure = backend_failure(candidate, calls, dtype, device)
        if failure is None:
            return AttentionChoice(candidate, "the first that is right", {}, rejected, rejections(rejected))
        rejected[candidate] = failure
    raise AssertionError(f"no attention backend is right here: {rejected}")


def fastest(
    candidates: Sequence[str],
    calls: Counter[AttentionCall],
    dtype: torch.dtype,
    device: torch.device,
    rejected: dict[str, str],
    cache: AttentionCache,
) -> AttentionChoice:
    """The fastest of `candidates` that work; `cache` keeps it."""
    failures = {name: backend_failure(name, calls, dtype, device) for name in candidates}
    rejected |= {name: failure for name, failure in failures.items() if failure is not None}
    right = [name for name in candidates if failures[name] is None]
    assert right, f"no attention backend is right here: {rejected}"
    seconds = step_seconds(right, calls, dtype, device)
    name = min(right, key=lambda candidate: seconds[candidate])
    cache.write(name, seconds, rejected)
    return AttentionChoice(name, "the fastest", seconds, rejected, (*cache.notices, *rejections(rejected)))


def step_seconds(
    names: Sequence[str], calls: Counter[AttentionCall], dtype: torch.dtype, device: torch.device
) -> dict[str, float]:
    """By backend: seconds of all `calls` of a step, forward and backward. Backends take turns; medians are added up."""
    total = dict.fromkeys(names, 0.0)
    for call, count in calls.items():
        probes, cotangent = make_probes(call, dtype, device)
        measured: dict[str, list[float]] = {name: [] for name in names}
        for repetition in range(WARM_UP + REPETITIONS):
            for name in names:
                synchronise(device)
                start = time.perf_counter()
                output_and_gradients(BACKENDS[name], probes, cotangent)
                synchronise(device)
                if repetition >= WARM_UP:
                    measured[name].append(time.perf_counter() - start)
        for name in names:
            total[name] += count * statistics.median(measured[name])
    return total


def check_backend(name: str, calls: Counter[AttentionCall], dtype: torch.dtype, device: torch.device) -> None:
    """Raises UserError unless the backend `name` works for `calls`."""
    failure = backend_failure(name, calls, dtype, device)
    if failure is not None:
        raise UserError(f"runtime.attention_backend: {name} does not work here: {failure}; use auto, sdpa or math")


def rejections(rejected: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"attention: {name} is not used: {failure}" for name, failure in rejected.items())


def activate_for_sampling(name: str, config: ModelConfig, device: torch.device) -> AttentionChoice:
    """Make the backend for images, which are made in float32, the active one; images do not depend on a timing.

    That is the one named, else the first right one of "sdpa" and "math", also in place of one that has no float32.
    Raises UserError when the one named does not work.
    """
    calls = attention_calls(config, CPU_BATCH_SIZE)
    if name == "auto" or name in NOT_IN_FLOAT32[device.type]:
        choice = first_right(("sdpa", "math"), calls, torch.float32, device, {})
        if name != "auto":
            notice = f"attention: {name} has no float32, in which images are made: {choice.backend} makes them"
            choice = replace(choice, notices=(*choice.notices, notice))
    else:
        check_backend(name, calls, torch.float32, device)
        choice = AttentionChoice(name, "named in the recipe", {}, {})
    activate(choice.backend, torch.float32)
    return choice


def is_timed(device: torch.device) -> bool:
    return device.type == "cuda"


def synchronise(device: torch.device) -> None:
    """Wait until `device` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
