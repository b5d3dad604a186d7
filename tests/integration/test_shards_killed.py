"""Shards made by many processes that are killed at random moments: nothing lost, nothing doubled, the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data_prep.array_task import ArrayTask
from data_prep.shards import make_shards
from ifvit.config.schema import Recipe
from ifvit.data.shard_set import ShardSet
from tests.drawn_coco import draw_coco, tiny_recipe, tiny_values
from tests.forked_process import exit_code, forked
from tests.shard_folders import contents
from tests.stored_samples import stored_ids

NUM_IMAGES, SAMPLES_PER_SHARD, NUM_SHARDS = 200, 8, 25


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw_coco(tmp_path_factory.mktemp("coco"), num_images=NUM_IMAGES)
    (root / "train2014" / "COCO_train2014_000000000016.jpg").write_text("no image")
    return root


def recipe_for(coco: Path, root: Path) -> Recipe:
    overrides = (f"data.samples_per_shard={SAMPLES_PER_SHARD}", "data.max_bad_share=0.01")
    return tiny_recipe(coco, root, *overrides)


@pytest.fixture(scope="module")
def undisturbed(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The files, and how long they took."""
    root = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    make_shards(recipe_for(coco, root))
    seconds = time.monotonic() - started
    ids = stored_ids(ShardSet.open(root / "train"))
    assert ids == [7 + 3 * number for number in range(NUM_IMAGES) if number != 3]
    return contents(root / "train"), seconds


def test_killed_at_random_moments(coco: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    generator = random.Random(0)
    recipe = recipe_for(coco, tmp_path)
    numbers = []
    for _ in range(12):
        process = forked(lambda: make_shards(recipe))
        time.sleep(generator.uniform(0, min(seconds, 6) / 4))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        numbers.append(len(list((tmp_path / "train").glob("shard-*.json"))))
    assert numbers == sorted(numbers)
    make_shards(recipe)
    assert contents(tmp_path / "train") == expected


def test_tasks_share_the_shards_and_the_last_one_writes_the_index(
    coco: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_for(coco, tmp_path)
    assert make_shards(recipe, ArrayTask(1, 3)) is None
    assert "8 shards made, 17 of 25 are missing" in capsys.readouterr().out
    numbers = [int(path.stem[-6:]) for path in (tmp_path / "train").glob("shard-*.tar")]
    assert sorted(numbers) == list(range(1, NUM_SHARDS, 3))
    assert make_shards(recipe, ArrayTask(2, 3)) is None
    assert not (tmp_path / "train" / "index.json").exists()
    index = make_shards(recipe, ArrayTask(0, 3))
    assert index is not None
    assert contents(tmp_path / "train") == undisturbed[0]


def test_processes_that_start_at_once_make_each_shard_once(
    coco: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    recipe = recipe_for(coco, tmp_path)

    def work() -> None:
        log = (tmp_path / f"log{os.getpid()}").open("w")
        os.dup2(log.fileno(), 1)
        make_shards(recipe)

    processes = [forked(work) for _ in range(3)]
    assert [exit_code(process) for process in processes] == [0, 0, 0]
    assert contents(tmp_path / "train") == undisturbed[0]


class Command:
    """`python -m data_prep shards` as one task of two, with two workers, in a process group of its own."""

    def __init__(self, recipe: Path, task: int, repository: Path, log: Path) -> None:
        self.log = log
        array = {"ID": str(task), "COUNT": "2", "MIN": "0", "MAX": "1", "STEP": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "data_prep", "shards", str(recipe), "--workers", "2"],
            cwd=repository,
            env=os.environ | {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()},
            stdout=log.open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_one_worker(self) -> bool:
        """A process of the group that was forked from another one than the command itself, that is, a worker."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self.is_worker(entry / "stat"):
                os.kill(int(entry.name), signal.SIGKILL)
                return True
        return False

    def is_worker(self, stat: Path) -> bool:
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False
        parent, group = int(fields[1]), int(fields[2])
        return group == self.process.pid != parent and int(stat.parent.name) != self.process.pid


def test_two_tasks_of_two_workers_killed_as_real_commands(
    coco: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path, repository: Path
) -> None:
    values = tiny_values(coco, tmp_path)
    values["data"] |= {"samples_per_shard": SAMPLES_PER_SHARD, "max_bad_share": 0.01}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    folder = tmp_path / "train"

    def start() -> list[Command]:
        return [Command(recipe, task, repository, tmp_path / f"task{task}.log") for task in range(2)]

    def wait_for(condition: Callable[[], bool], commands: list[Command]) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < deadline, [command.log.read_text() for command in commands]
            time.sleep(0.005)

    commands = start()
    wait_for(lambda: len(list(folder.glob("shard-*.json"))) >= 3, commands)
    for command in commands:
        command.kill()
    commands = start()
    wait_for(commands[0].kill_one_worker, commands)
    codes = [command.process.wait(timeout=240) for command in commands]
    logs = [command.log.read_text() for command in commands]
    assert codes == [2, 0], logs
    assert "1 of 2 workers were ended by SIGKILL" in logs[0]
    make_shards(recipe_for(coco, tmp_path), ArrayTask(0, 2))
    assert contents(folder) == undisturbed[0]
