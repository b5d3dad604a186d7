"""A process that measures training: one rank, set up as `train` sets itself up."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ifvit.runtime.distributed import Ranks, start_process_group, stop_process_group, training_device
from ifvit.runtime.environment import cpu_model, gpu_names
from ifvit.runtime.host_memory import keep_freed_memory


@contextmanager
def one_rank() -> Iterator[torch.device]:
    """The device to measure on, within a process group of this process alone."""
    device = training_device(Ranks())
    if device.type == "cpu":
        keep_freed_memory()
    start_process_group(Ranks(), device, timeout_seconds=600)
    try:
        yield device
    finally:
        stop_process_group()


def machine_name(device: torch.device) -> str:
    """The GPU, or the CPU and the threads that torch uses of it."""
    return gpu_names()[0] if device.type == "cuda" else f"{cpu_model()}, {torch.get_num_threads()} threads"
