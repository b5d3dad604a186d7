"""A training of several ranks as a launcher starts it, in forked processes that tests may kill or stop."""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ifvit.config.loading import merged, parse_overrides
from tests.distributed.training_runs import RUN
from tests.drawn_coco import tiny_values
from tests.fork_server import become, fork_context

REPOSITORY = Path(__file__).parents[1]


class ForkedJob:
    """`python -m ifvit train RECIPE` on `world_size` ranks of this machine, with the environment torchrun gives."""

    def __init__(self, recipe: Path, world_size: int, logs: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start the ranks; what they print comes into `logs`. `environment` is added to this process's own."""
        logs.mkdir(parents=True, exist_ok=True)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.outputs = [[logs / f"{name}-{rank}" for name in ("stdout", "stderr")] for rank in range(world_size)]
        shared = {**os.environ, "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.processes = []
        for rank, outputs in enumerate(self.outputs):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **(environment or {})}
            arguments = (["ifvit", "train", str(recipe)], REPOSITORY, own, outputs)
            process = fork_context().Process(target=become, args=arguments)
            process.start()
            self.processes.append(process)

    @property
    def is_running(self) -> bool:
        """Whether all ranks are alive."""
        return all(process.is_alive() for process in self.processes)

    def pid(self, rank: int) -> int:
        pid = self.processes[rank].pid
        assert pid is not None
        return pid

    def wait(self, timeout_seconds: float) -> list[int]:
        """The exit codes by rank. What still runs then is killed: code -9."""
        deadline = time.monotonic() + timeout_seconds
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0))
        for process in self.processes:
            process.kill()
            process.join()
        return [process.exitcode or 0 for process in self.processes]

    def printed(self, rank: int) -> str:
        """What `rank` wrote to its standard error."""
        return self.outputs[rank][1].read_text(errors="replace")


def write_recipe(file: Path, shards_root: Path, overrides: Sequence[str]) -> Path:
    """The recipe of `training_runs.RUN` with `overrides`, in `file`."""
    values = merged(tiny_values(Path("/nowhere"), shards_root), parse_overrides([*RUN, *overrides]))
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file
