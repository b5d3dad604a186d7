"""A training run is a directory. This file spells all its names, and guards it: one process at a time, one recipe."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

from ifvit.config.errors import UserError
from ifvit.config.loading import leaves, read_yaml, resolved_yaml, validate_recipe
from ifvit.config.schema import Recipe
from ifvit.runtime.files import write_atomically
from ifvit.runtime.run_writer import RunWriter

# What may differ between two starts of one run: how long, how it is logged and saved, on what it runs, and where things
# lie. What lies there is compared by its digest. The micro-batch changes no sample and no draw, and with another number
# of GPUs it has to change. What follows on bad steps is decided when they come, but not which steps are spikes.
CHANGEABLE = (
    "train.max_steps",
    "train.micro_batch_size",
    "train.activation_checkpointing",
    "train.bad_steps.max_in_a_row",
    "train.bad_steps.max_rollbacks",
    "data.coco_root",
    "data.image_folder",
    "data.image_tars",
    "data.shards_root",
    "data.cache_dir",
    "data.cache_bytes",
    "data.max_bad_share",
    "data.validation_split",
    "encoders.autoencoder",
    "encoders.text_encoder",
    "encoders.tokenizer",
    "checkpoint.",
    "tracking.",
    "runtime.",
)


class RunDirectory:
    """Names inside one run's folder, the lock on it while this object lives, and the writer of its logs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.environment_file = path / "environment.json"
        self.metrics_file = path / "metrics.jsonl"
        self.discarded_metrics_file = path / "metrics.discarded.jsonl"
        self.mlflow_file = path / "mlflow.json"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.logs = path / "logs"
        self.bad_steps_file = self.logs / "bad_steps.jsonl"
        self.rollbacks_file = self.logs / "rollbacks.jsonl"
        self.evaluation = path / "evaluation"
        self.lock_file = path / "lock"
        self.held_lock: IO[str] | None = None
        self.writer = RunWriter(path)

    def heartbeat_file(self, rank: int) -> Path:
        """Where a rank says, about every second, where it is."""
        return self.logs / f"heartbeat-rank-{rank:05d}.json"

    def stacks_file(self, rank: int) -> Path:
        """Where a rank that the watchdog ends writes what its threads were doing."""
        return self.logs / f"stacks-rank-{rank:05d}.txt"

    @property
    def name(self) -> str:
        return self.path.name

    def read_recipe(self) -> Recipe:
        """The recipe that the run was started with. UserError when this version of ifvit cannot read it."""
        try:
            return validate_recipe(read_yaml(self.recipe_file), str(self.recipe_file))
        except UserError as error:
            raise UserError(
                f"{self.recipe_file}: does not fit this version of ifvit; start a run with another name, or use the "
                f"version in {self.environment_file.name}",
                *error.lines,
            ) from error

    def lock(self) -> None:
        """Hold the run for this process. UserError naming the process that holds it already."""
        file = self.lock_file.open("a+", encoding="utf-8")
        try:
            hold(file)
        except BlockingIOError:
            file.seek(0)
            holder = lock_holder(file.read())
            file.close()
            raise UserError(f"run {self.path}: is being trained by {holder}; wait for it or stop it") from None
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n")
        file.flush()
        self.held_lock = file  # the system drops the lock when the file is closed or the process ends, however it ends

    def is_held(self) -> bool:
        """Whether some process holds the run."""
        try:
            with self.lock_file.open(encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def release(self) -> None:
        """Let another process have the run."""
        if self.held_lock is not None:
            self.held_lock.close()
            self.held_lock = None


def hold(file: IO[str]) -> None:
    """Raises BlockingIOError where another process holds the lock, and not only looks at it for a moment."""
    for seconds in (0.05, 0.2):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(seconds)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def open_run(recipe: Recipe) -> tuple[RunDirectory, bool]:
    """The locked directory of `recipe`'s run, and whether the run was there before. For rank 0 only.

    Raises UserError when the run has other values than `recipe`, is held by another process, or cannot be written.
    """
    run = RunDirectory(Path(recipe.runtime.runs_root) / recipe.name)
    try:
        refuse_foreign_folder(run)
        run.path.mkdir(parents=True, exist_ok=True)
        run.lock()
        existed = run.recipe_file.is_file()
        if existed:
            compare(run, run.read_recipe(), recipe)
        for folder in (run.checkpoints, run.samples, run.logs):
            folder.mkdir(exist_ok=True)
        for file in run.logs.glob("heartbeat-rank-*.json"):  # of an earlier start, maybe with more ranks
            file.unlink()
        for file in (run.metrics_file, run.discarded_metrics_file, run.bad_steps_file, run.rollbacks_file):
            if file.is_file():
                file.open("ab").close()  # what cannot be written later is survived; what cannot be now is a mistake
        write_atomically(run.recipe_file, resolved_yaml(recipe).encode())
    except UserError:
        run.release()
        raise
    except OSError as error:
        run.release()
        raise UserError(
            f"runtime.runs_root: cannot write the run {run.path}: {error.strerror or error}; "
            "give a writable folder with --set runtime.runs_root=..."
        ) from error
    return run, existed


def find_run(path_or_name: str | Path, runs_root: str | Path = "runs") -> RunDirectory:
    """The run in the folder `path_or_name`, or of that name in `runs_root`. UserError when there is none."""
    candidates = [Path(path_or_name), Path(runs_root) / path_or_name]
    for candidate in candidates:
        run = RunDirectory(candidate)
        if run.recipe_file.is_file():
            return run
    if candidates[0].is_dir():
        raise UserError(f"{path_or_name}: is a folder but no run: it has no recipe.yaml")
    raise UserError(f"{path_or_name}: no such run; give the run's folder, runs/NAME")


def refuse_foreign_folder(run: RunDirectory) -> None:
    """A folder with other things in it is somebody's data. One with nothing but a lock is a start that was killed."""
    if run.path.is_dir() and not run.recipe_file.is_file():
        ours = {run.lock_file.name, run.checkpoints.name, run.samples.name, run.logs.name}
        others = sorted(
            entry.name
            for entry in run.path.iterdir()
            if entry.name not in ours and not entry.name.startswith(".recipe.yaml")
        )
        if others:
            raise UserError(
                f"run {run.path}: the folder is there but is no run (it has {others[0]} and no recipe.yaml); "
                "choose another name or move it away"
            )


def compare(run: RunDirectory, stored: Recipe, wanted: Recipe) -> None:
    """UserError naming every field that differs and may not."""
    there, here = (dict(leaves(recipe.model_dump(mode="json"))) for recipe in (stored, wanted))
    differing = [
        f"{dotted} is {shown(there, dotted)} there and {shown(here, dotted)} here"
        for dotted in dict.fromkeys([*there, *here])
        if not is_changeable(dotted) and there.get(dotted) != here.get(dotted)
    ]
    if differing:
        raise UserError(
            f"run {run.path} exists with other values: {'; '.join(differing)}; "
            "choose another name (--set name=...) or the same values"
        )


def is_changeable(dotted: str) -> bool:
    is_place_of_mixed_set = dotted.startswith("data.mixture.") and dotted.endswith(".shards_root")
    return dotted.startswith(CHANGEABLE) or is_place_of_mixed_set


def shown(values: dict[str, Any], dotted: str) -> str:
    return json.dumps(values[dotted], ensure_ascii=False) if dotted in values else "absent"


def lock_holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it is just writing its line
