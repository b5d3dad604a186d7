"""Real DeepSpeed ranks on gloo that stay alive for many cases: starting them costs more than most cases."""

import contextlib
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.fork_server import fork_context


class RankPool:
    """`world_size` processes, forked from a clean server that has imported torch and deepspeed.

    They are forked for the first case. A case that fails on one rank ends all of them, so that nobody waits for that
    rank in a collective operation, and the next case has new ones.
    """

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.port = reserved_port()
        self.connections: list[Connection] = []
        self.processes: list[Any] = []

    def run(self, function: Callable[..., Any], **arguments: Any) -> list[Any]:
        """`function(ranks, **arguments)` on all ranks; its results by rank. The first failure fails the caller."""
        if not self.processes:
            self.start()
        try:
            for connection in self.connections:
                with contextlib.suppress(BrokenPipeError):  # of a rank that is gone: its outcome says so
                    connection.send((function, arguments))
            return self.results()
        except BaseException:
            self.end()
            raise

    def start(self) -> None:
        context, (_, port) = fork_context(), self.port.getsockname()
        for rank in range(self.world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, rank, self.world_size, port), daemon=True)
            process.start()
            theirs.close()  # or the end of a rank that dies would not be seen
            self.connections.append(ours)
            self.processes.append(process)

    def results(self) -> list[Any]:
        results: dict[int, Any] = {}
        while len(results) < self.world_size:
            waiting = [connection for rank, connection in enumerate(self.connections) if rank not in results]
            ended = {rank: self.outcome(rank) for rank in map(self.connections.index, wait(waiting))}  # type: ignore[arg-type]
            failures = [f"rank {rank} of {self.world_size}:\n{told}" for rank, (told, _) in ended.items() if told]
            assert not failures, "\n".join(failures)
            results |= {rank: result for rank, (_, result) in ended.items()}
        return [results[rank] for rank in range(self.world_size)]

    def outcome(self, rank: int) -> tuple[str | None, Any]:
        try:
            outcome: tuple[str | None, Any] = self.connections[rank].recv()
            return outcome
        except (EOFError, ConnectionResetError):
            self.processes[rank].join()
            return f"ended with exit code {self.processes[rank].exitcode}", None

    def end(self) -> None:
        for process in self.processes:
            process.kill()  # one that hangs takes no signal to end
            process.join()
        for connection in self.connections:
            connection.close()
        self.processes, self.connections = [], []

    def close(self) -> None:
        self.end()
        self.port.close()


def serve(connection: Connection, rank: int, world_size: int, port: int) -> None:
    import torch

    from ifvit.runtime.distributed import Ranks, start_process_group

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = Ranks(rank, rank, world_size)
    start_process_group(ranks, torch.device("cpu"), timeout_seconds=300)
    while True:
        function, arguments = connection.recv()
        try:
            connection.send((None, function(ranks, **arguments)))
        except BaseException:
            connection.send((traceback.format_exc(), None))


def reserved_port() -> socket.socket:
    """A socket at a port of this machine that nobody else is given while it is open, and at which, as it does not
    listen itself, a server that is told the port still can."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved
