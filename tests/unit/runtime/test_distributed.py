"""Which process this is, from the variables of torchrun and SLURM, and a process group of one."""

import os
import subprocess
import sys

import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.runtime.distributed import Ranks, find_ranks, first_host, master_address, master_port, training_device

NAMES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID",
    "SLURM_STEP_ID", "SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NODELIST",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


def test_alone() -> None:
    assert find_ranks() == Ranks(rank=0, local_rank=0, world_size=1)


def test_torchrun_comes_before_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, RANK=5, WORLD_SIZE=8, LOCAL_RANK=1)
    set_all(monkeypatch, SLURM_STEP_ID=0, SLURM_PROCID=0, SLURM_NTASKS=2, SLURM_LOCALID=0)
    assert find_ranks() == Ranks(rank=5, local_rank=1, world_size=8)


def test_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, SLURM_STEP_ID=0, SLURM_PROCID=3, SLURM_NTASKS=4, SLURM_LOCALID=1)
    assert find_ranks() == Ranks(rank=3, local_rank=1, world_size=4)


@pytest.mark.parametrize(
    "values", [{"SLURM_PROCID": 0, "SLURM_NTASKS": 4, "SLURM_LOCALID": 0}, {"SLURM_STEP_ID": 0, "SLURM_NTASKS": 1}]
)
def test_one_process_inside_an_allocation(monkeypatch: pytest.MonkeyPatch, values: dict[str, int]) -> None:
    set_all(monkeypatch, **values)
    assert find_ranks() == Ranks()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"WORLD_SIZE": 2}, "RANK: is not set in the environment"),
        ({"RANK": 0}, "WORLD_SIZE: is not set in the environment"),
        ({"RANK": 0, "WORLD_SIZE": 2}, "LOCAL_RANK: is not set in the environment"),
        ({"RANK": "first", "WORLD_SIZE": 2, "LOCAL_RANK": 0}, "RANK: is 'first', must be an integer"),
        ({"RANK": 2, "WORLD_SIZE": 2, "LOCAL_RANK": 0}, "RANK: is 2, must be from 0 to WORLD_SIZE - 1 = 1"),
        ({"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 1}, "LOCAL_RANK: is 1, must be from 0 to RANK = 0"),
        ({"SLURM_STEP_ID": 0, "SLURM_PROCID": 1, "SLURM_NTASKS": 2}, "SLURM_LOCALID: is not set in the environment"),
    ],
)
def test_variables_that_do_not_fit(monkeypatch: pytest.MonkeyPatch, values: dict[str, object], problem: str) -> None:
    set_all(monkeypatch, **values)
    with pytest.raises(UserError) as error:
        find_ranks()
    (line,) = error.value.lines
    assert line.startswith(problem)


def test_the_device_without_cuda_or_when_told_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert training_device(Ranks()) == torch.device("cpu")
    monkeypatch.delenv("DS_ACCELERATOR")
    assert training_device(Ranks(3, 1, 4)) == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"LOCAL_RANK: is 2, but this machine shows 2 GPU\(s\)"):
        training_device(Ranks(2, 2, 4))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_device(Ranks(3, 1, 4)) == torch.device("cpu")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu07", "gpu07"),
        ("gpu07,big1", "gpu07"),
        ("gpu[03-05,9],big1", "gpu03"),
        ("gpu[12,14]", "gpu12"),
        ("big1,gpu[03-05]", "big1"),
        ("rack[1-2]-gpu", "rack1-gpu"),
    ],
)
def test_the_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_where_the_ranks_of_a_slurm_job_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, SLURM_JOB_ID=1234567, SLURM_JOB_NODELIST="gpu[03-04]")
    ranks = Ranks(1, 1, 2)
    assert (master_address(ranks), master_port(ranks)) == ("gpu03", 24567)
    assert master_address(Ranks()) == "127.0.0.1"


def test_several_processes_without_a_meeting_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for function, name in ((master_address, "MASTER_ADDR"), (master_port, "MASTER_PORT")):
        with pytest.raises(UserError, match=f"^{name}: is not set for several processes"):
            function(Ranks(1, 1, 2))


def test_a_group_of_one_sets_what_deepspeed_reads_and_stays_quiet() -> None:
    """In a process of its own: a process group and its variables are the whole process's."""
    code = """if True:
        import os, torch
        from ifvit.runtime.distributed import Ranks, start_process_group, stop_process_group
        start_process_group(Ranks(), torch.device("cpu"), timeout_seconds=300)
        total = torch.ones(1)
        torch.distributed.all_reduce(total)
        torch.distributed.all_gather_into_tensor(torch.zeros(1), total)  # as DeepSpeed calls it: torch warns
        gathered = [None]
        torch.distributed.all_gather_object(gathered, "here")
        print(int(total), gathered, *(os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")))
        print(int(os.environ["MASTER_PORT"]) > 1023)
        stop_process_group()
        stop_process_group()
    """
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 ['here'] 0 1 0 127.0.0.1", "True"]
    assert "FutureWarning" not in done.stderr


def test_two_ranks_meet() -> None:
    code = """if True:
        import torch
        from ifvit.runtime.distributed import find_ranks, start_process_group, stop_process_group
        ranks = find_ranks()
        start_process_group(ranks, torch.device("cpu"), timeout_seconds=300)
        total = torch.tensor([float(ranks.rank + 1)])
        torch.distributed.all_reduce(total)
        print(int(total))
        stop_process_group()
    """
    free = master_port(Ranks())
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "SLURM_STEP_ID": "0",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_NTASKS": "2",
            "SLURM_JOB_NODELIST": "localhost",
            "MASTER_PORT": str(free),
        }
        processes.append(
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        )
    assert [process.communicate(timeout=400)[0] for process in processes] == ["3\n", "3\n"]
