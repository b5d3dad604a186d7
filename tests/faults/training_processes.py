"""`ifvit train` as one process per rank, each of which a test may stop or kill."""

import os
import subprocess
import time
from pathlib import Path

import yaml

from ifvit.runtime.fault_injection import VARIABLE
from tests.distributed.rank_pool import reserved_port
from tests.distributed.training_runs import RUN
from tests.drawn_coco import tiny_recipe
from tests.fork_server import become, fork_context


class TrainingProcesses:
    """The command's processes, forked from a server that has made the imports.

    In a `with` block nothing of them is left behind, however it ends; `wait` sees to that by itself.

    Args:
        folder: for the recipe and the outputs.
        shards_root: of the shards that are trained on.
        overrides: of the recipe of `training_runs.RUN`.
        faults: what IFVIT_FAULTS says.
    """

    def __init__(self, folder: Path, shards_root: Path, world_size: int, *overrides: str, faults: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        recipe = tiny_recipe(Path("/nowhere"), shards_root, *RUN, f"runtime.runs_root={folder / 'runs'}", *overrides)
        recipe_file = folder / "recipe.yaml"
        recipe_file.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True), encoding="utf-8")
        self.port = reserved_port()
        address = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1"}
        address["MASTER_PORT"] = str(self.port.getsockname()[1])
        self.run_folder = folder / "runs/tiny"
        self.outputs: list[Path] = []
        self.processes = []
        for rank in range(world_size):
            outputs = [folder / f"{stream}-{rank}" for stream in ("stdout", "stderr")]
            environment = os.environ | address | {"RANK": str(rank), "LOCAL_RANK": str(rank), VARIABLE: faults}
            arguments = ["ifvit", "train", str(recipe_file)]
            process = fork_context().Process(target=become, args=(arguments, folder, environment, outputs))
            process.start()
            self.outputs.append(outputs[1])
            self.processes.append(process)

    def __enter__(self) -> "TrainingProcesses":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what is left: pytest would wait for it for ever."""
        for process in self.processes:
            process.kill()
            process.join()
        self.port.close()

    def send(self, rank: int, number: int) -> None:
        """Signal `number` to `rank`."""
        process_id = self.processes[rank].pid
        assert process_id is not None
        os.kill(process_id, number)

    def wait(self, seconds: float = 240, ranks: list[int] | None = None) -> list[int]:
        """The exit codes of `ranks` (default: all), negative for a signal. Kills what is left after `seconds`."""
        waited = self.processes if ranks is None else [self.processes[rank] for rank in ranks]
        end = time.monotonic() + seconds
        try:
            for process in waited:
                process.join(max(0.0, end - time.monotonic()))
        finally:
            late = [process for process in waited if process.is_alive()]
            self.close()
        if late:
            texts = [output.read_text() for output in self.outputs]
            raise subprocess.TimeoutExpired("ifvit train", seconds, "\n".join(texts))
        return [process.exitcode for process in waited if process.exitcode is not None]

    def stderr(self, rank: int = 0) -> str:
        return self.outputs[rank].read_text(errors="replace")

    def wait_for(self, text: str, rank: int = 0, seconds: float = 120) -> None:
        """Until `text` stands in the standard error of `rank`."""
        end = time.monotonic() + seconds
        while text not in self.stderr(rank):
            assert time.monotonic() < end and self.processes[rank].is_alive(), self.stderr(rank)
            time.sleep(0.05)
