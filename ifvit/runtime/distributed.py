"""Which process this is among how many, its device, and the process group that joins them."""

import os
import socket
import warnings
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed

from ifvit.config.errors import UserError

_set_variables: list[str] = []  # what start_process_group added to the environment


@dataclass(frozen=True)
class Ranks:
    """This process's place: `rank` of `world_size` over all nodes, `local_rank` on its own node."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1


def find_ranks() -> Ranks:
    """From RANK, WORLD_SIZE, LOCAL_RANK (torchrun), else SLURM's variables under srun with several tasks, else single.

    Raises UserError when the variables contradict each other or only some of them are set.
    """
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        return ranks_from("RANK", "LOCAL_RANK", "WORLD_SIZE", "start with torchrun, or unset RANK and WORLD_SIZE")
    # A batch script that starts us without srun has SLURM_PROCID and SLURM_NTASKS too, but is one process: only srun
    # makes a step.
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        return ranks_from("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "start with srun")
    return Ranks()


def ranks_from(rank_name: str, local_rank_name: str, world_size_name: str, fix: str) -> Ranks:
    rank, world_size = environment_integer(rank_name, fix), environment_integer(world_size_name, fix)
    if local_rank_name not in os.environ and world_size == 1:
        return Ranks(rank, 0, world_size)
    local_rank = environment_integer(local_rank_name, fix)
    if not 0 <= rank < world_size:
        raise UserError(f"{rank_name}: is {rank}, must be from 0 to {world_size_name} - 1 = {world_size - 1}; {fix}")
    if not 0 <= local_rank <= rank:
        raise UserError(f"{local_rank_name}: is {local_rank}, must be from 0 to {rank_name} = {rank}; {fix}")
    return Ranks(rank, local_rank, world_size)


def environment_integer(name: str, fix: str) -> int:
    text = os.environ.get(name)
    if text is None:
        raise UserError(f"{name}: is not set in the environment although others of its group are; {fix}")
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name}: is '{text}', must be an integer; {fix}") from None


def is_cuda_used() -> bool:
    """Whether there is CUDA and DS_ACCELERATOR does not say cpu."""
    return os.environ.get("DS_ACCELERATOR") != "cpu" and torch.cuda.is_available()


def training_device(ranks: Ranks) -> torch.device:
    """cuda:{local_rank} where CUDA is used, else cpu."""
    if not is_cuda_used():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32: in moments, decoded pixels and every comparison
    if torch.cuda.device_count() == 1:  # srun --gpus-per-task=1 shows each process its own GPU only
        return torch.device("cuda", 0)
    if ranks.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"LOCAL_RANK: is {ranks.local_rank}, but this machine shows {torch.cuda.device_count()} GPU(s); "
            "start as many processes per node as there are GPUs"
        )
    return torch.device("cuda", ranks.local_rank)


def start_process_group(ranks: Ranks, device: torch.device, timeout_seconds: float) -> None:
    """Join this process to the others; collective operations that take longer than `timeout_seconds` end it.

    Sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where unset: DeepSpeed reads them, also for one
    process. On CUDA, tensors on the GPU go through nccl and those on the CPU through gloo.
    """
    silence_c10d_logger()
    set_for_the_group("RANK", ranks.rank)
    set_for_the_group("WORLD_SIZE", ranks.world_size)
    set_for_the_group("LOCAL_RANK", ranks.local_rank)
    if "MASTER_ADDR" not in os.environ:
        set_for_the_group("MASTER_ADDR", master_address(ranks))
    if "MASTER_PORT" not in os.environ:
        set_for_the_group("MASTER_PORT", master_port(ranks))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        backend="cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=timedelta(seconds=timeout_seconds),
    )


def stop_process_group() -> None:
    """Leave the process group, if this process is in one, and take its address back out of the environment."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in _set_variables:  # a process started later would try to join at this address
        os.environ.pop(name, None)
    _set_variables.clear()


def set_for_the_group(name: str, value: object) -> None:
    if name not in os.environ:
        os.environ[name] = str(value)
        _set_variables.append(name)


def master_address(ranks: Ranks) -> str:
    if ranks.world_size == 1:
        return "127.0.0.1"
    # submitit and srun give the node list; its first host is rank 0's.
    nodes = os.environ.get("SLURM_JOB_NODELIST") or os.environ.get("SLURM_NODELIST")
    if nodes is None:
        raise UserError("MASTER_ADDR: is not set for several processes; start with torchrun or srun, or set it")
    return first_host(nodes)


def master_port(ranks: Ranks) -> int:
    if ranks.world_size == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])
    job_id = os.environ.get("SLURM_JOB_ID", "")
    if not job_id.isdigit():
        raise UserError("MASTER_PORT: is not set for several processes; start with torchrun or srun, or set it")
    return 20_000 + int(job_id) % 10_000  # the same on every node of a job, rarely that of another job


def first_host(nodes: str) -> str:
    """The first host of SLURM's compact list: "gpu[03-05,9],big1" -> "gpu03"."""
    prefix, bracket, rest = nodes.partition("[")
    if not bracket or "," in prefix:
        return nodes.split(",")[0]
    inside, _, behind = rest.partition("]")
    suffix = behind.split(",")[0]
    return prefix + inside.split(",")[0].split("-")[0] + suffix


def silence_c10d_logger() -> None:
    # torch 2.13 warns at every collective about its own logger; hundreds of lines that no user can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
