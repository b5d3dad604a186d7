"""Real DeepSpeed ranks on gloo that stay alive for many cases: starting them costs more than most cases."""

import contextlib
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tests.fork_server import fork_context


class RankPool:
    """`world_size` processes, forked from a clean server that has imported torch and deepspeed."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        context = fork_context()
        port = free_port()
        self.connections: list[Connection] = []
        self.processes = []
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, rank, world_size, port), daemon=True)
            process.start()
            self.connections.append(ours)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], **arguments: Any) -> list[Any]:
        """`function(ranks, **arguments)` on all ranks; its results by rank. A failure on any rank fails the caller."""
        for connection in self.connections:
            connection.send((function, arguments))
        outcomes = [connection.recv() for connection in self.connections]
        for rank, (failure, _) in enumerate(outcomes):
            assert failure is None, f"rank {rank} of {self.world_size}:\n{failure}"
        return [result for _, result in outcomes]

    def close(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):  # of a rank that is gone
                connection.send(None)
        for process in self.processes:
            process.join(20)
            process.kill()  # one that hangs takes no signal to end, and pytest would wait for it
            process.join()


def serve(connection: Connection, rank: int, world_size: int, port: int) -> None:
    import torch

    from ifvit.runtime.distributed import Ranks, start_process_group, stop_process_group

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = Ranks(rank, rank, world_size)
    start_process_group(ranks, torch.device("cpu"), timeout_seconds=300)
    while (task := connection.recv()) is not None:
        function, arguments = task
        try:
            connection.send((None, function(ranks, **arguments)))
        except BaseException:
            connection.send((traceback.format_exc(), None))
    stop_process_group()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
