"""One recipe, one process, one run."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe
from ifvit.runtime.run_directory import find_run, open_run


def recipe_with(runs_root: Path, *overrides: str) -> Recipe:
    path = runs_root.parent / "recipe.yaml"
    path.write_text(
        "name: small\n"
        "data: {coco_root: images, shards_root: shards}\n"
        "encoders: {autoencoder: random-autoencoder-small, text_encoder: random-clip-small}\n"
        "optimizer: {learning_rate: 0.1}\n"
    )
    return load_recipe(path, [f"runtime.runs_root={json.dumps(str(runs_root))}", *overrides])


@pytest.fixture
def runs_root(tmp_path: Path) -> Path:
    return tmp_path / "läufe and spaces"


def test_a_new_run_holds_its_recipe(runs_root: Path) -> None:
    recipe = recipe_with(runs_root)
    run, existed = open_run(recipe)
    assert not existed
    assert run.path == runs_root / "small"
    assert load_recipe(run.recipe_file) == recipe == run.read_recipe()
    assert {entry.name for entry in run.path.iterdir()} == {"recipe.yaml", "lock", "checkpoints", "samples", "logs"}


def test_the_same_recipe_resumes(runs_root: Path) -> None:
    open_run(recipe_with(runs_root))[0].release()
    assert open_run(recipe_with(runs_root))[1]


def test_length_logging_and_machine_may_change(runs_root: Path) -> None:
    open_run(recipe_with(runs_root))[0].release()
    changed = recipe_with(
        runs_root,
        "train.max_steps=7",
        "train.micro_batch_size=64",
        "train.bad_steps.max_in_a_row=5",
        "train.bad_steps.max_rollbacks=2",
        "tracking.log_every_steps=3",
        "runtime.watchdog_seconds=9",
    )
    run, existed = open_run(changed)
    assert existed
    assert run.read_recipe() == changed


@pytest.mark.parametrize("source", ["image_folder", "image_tars"])
def test_where_the_data_lie_may_change(runs_root: Path, source: str) -> None:
    open_run(recipe_with(runs_root))[0].release()
    elsewhere = ["data.coco_root=null", f"data.{source}=elsewhere", "data.shards_root=other", "data.max_bad_share=0.1"]
    assert open_run(recipe_with(runs_root, *elsewhere))[1]


def test_where_fetched_and_mixed_shards_lie_may_change(runs_root: Path) -> None:
    def opened(root: str, *overrides: str) -> bool:
        mixture = ["data.shards_root=null", f"data.mixture.a.shards_root={root}", "data.mixture.a.weight=1"]
        run, existed = open_run(recipe_with(runs_root, *mixture, *overrides))
        run.release()
        return existed

    assert not opened("here")
    assert opened("there")
    assert opened("https://host/there", "data.cache_dir=cache", "data.cache_bytes=7")
    with pytest.raises(UserError, match=r"data\.num_lanes is 64 there and 8 here"):
        opened("there", "data.num_lanes=8")
    with pytest.raises(UserError, match=r"data\.mixture\.a\.weight is 1\.0 there and 2\.0 here"):
        opened("there", "data.mixture.a.weight=2")


def test_other_values_are_named_and_nothing_is_changed(runs_root: Path) -> None:
    run, _ = open_run(recipe_with(runs_root))
    run.release()
    before = run.recipe_file.read_bytes()
    other = recipe_with(runs_root, "optimizer.learning_rate=0.2", "model.fusion.schedule=early", "train.max_steps=7")
    with pytest.raises(UserError) as error:
        open_run(other)
    assert list(error.value.lines) == [
        f"run {run.path} exists with other values: "
        'model.fusion.schedule is "intermediate" there and "early" here; '
        "model.fusion.num_image_blocks is 4 there and absent here; "
        "model.fusion.num_text_blocks is 1 there and absent here; "
        "optimizer.learning_rate is 0.1 there and 0.2 here; "
        "choose another name (--set name=...) or the same values"
    ]
    assert run.recipe_file.read_bytes() == before
    open_run(recipe_with(runs_root))  # and the lock is free again


def test_the_rest_of_train_may_not_change(runs_root: Path) -> None:
    open_run(recipe_with(runs_root))[0].release()
    with pytest.raises(UserError, match=r"train\.caption_dropout_prob is 0.1 there and 0.2 here"):
        open_run(recipe_with(runs_root, "train.caption_dropout_prob=0.2"))


def test_which_steps_are_spikes_may_not_change(runs_root: Path) -> None:
    """They are left out: it would be another run."""
    spikes = "train.bad_steps.spike_threshold=8", "train.bad_steps.spike_window=50"
    open_run(recipe_with(runs_root))[0].release()
    with pytest.raises(UserError, match=r"spike_threshold is null there and 8\.0 here; .*spike_window is 200 there"):
        open_run(recipe_with(runs_root, *spikes))


@pytest.mark.fault(
    "F26",
    injected="a second job on one run directory",
    detected="refused; the process and host that hold it are named",
    recovered="when the first ends",
    lost="nothing",
)
def test_a_run_in_use_is_refused_by_name_of_its_process(runs_root: Path) -> None:
    held, _ = open_run(recipe_with(runs_root))
    with pytest.raises(UserError) as error:
        open_run(recipe_with(runs_root))
    assert list(error.value.lines) == [
        f"run {held.path}: is being trained by process {os.getpid()} on {socket.gethostname()}; wait for it or stop it"
    ]


@pytest.mark.fault(
    "F26",
    injected="the process that holds a run killed",
    detected="-",
    recovered="the lock ends with it, the next start has the run",
    lost="nothing",
)
def test_the_lock_ends_with_its_process_however_that_ends(runs_root: Path) -> None:
    recipe = recipe_with(runs_root)
    code = (
        "import sys, time; from ifvit.config.loading import load_recipe; "
        "from ifvit.runtime.run_directory import open_run; "
        "run = open_run(load_recipe(sys.argv[1], [sys.argv[2]])); print('held', flush=True); time.sleep(60)"
    )
    override = f"runtime.runs_root={json.dumps(str(runs_root))}"
    command = [sys.executable, "-c", code, str(runs_root.parent / "recipe.yaml"), override]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on "):
            open_run(recipe)
        holder.kill()
    assert open_run(recipe)[1]


def test_a_folder_that_is_no_run_is_left_alone(runs_root: Path) -> None:
    (runs_root / "small").mkdir(parents=True)
    (runs_root / "small" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"the folder is there but is no run \(it has thesis.tex and no recipe.yaml\)"):
        open_run(recipe_with(runs_root))
    assert [entry.name for entry in (runs_root / "small").iterdir()] == ["thesis.tex"]


def test_a_start_killed_before_its_recipe_was_written_counts_as_new(runs_root: Path) -> None:
    (runs_root / "small").mkdir(parents=True)
    (runs_root / "small" / "lock").write_text("")
    assert not open_run(recipe_with(runs_root))[1]


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"^runtime.runs_root: cannot write the run .*: Not a directory; give a writable"
    ):
        open_run(recipe_with(tmp_path / "file"))


@pytest.mark.fault(
    "F26",
    injected="a read-only file system below runtime.runs_root",
    detected="one line names the field and the folder",
    recovered="another folder is given",
    lost="nothing",
)
def test_a_read_only_place_is_one_clear_line(runs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)  # tests run as root, whom no mode keeps out
    with pytest.raises(UserError, match="Read-only file system"):
        open_run(recipe_with(runs_root))


def test_a_log_that_cannot_be_written_is_a_mistake_at_the_start(
    runs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later it would be survived."""
    run, _ = open_run(recipe_with(runs_root))
    run.release()
    run.metrics_file.touch()
    opened = Path.open

    def open_others(path: Path, mode: str = "r", **options: Any) -> Any:
        if path == run.metrics_file and mode != "r":
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", open_others)
    with pytest.raises(UserError, match=r"cannot write the run .*: Permission denied"):
        open_run(recipe_with(runs_root))


def test_a_recipe_of_another_version_is_said(runs_root: Path) -> None:
    run, _ = open_run(recipe_with(runs_root))
    run.release()
    run.recipe_file.write_text(run.recipe_file.read_text() + "retired_field: 3\n")
    with pytest.raises(UserError) as error:
        open_run(recipe_with(runs_root))
    assert "does not fit this version of ifvit" in error.value.lines[0]
    assert error.value.lines[1].startswith("retired_field: unknown field")


def test_find_run_takes_a_folder_or_a_name(runs_root: Path) -> None:
    run, _ = open_run(recipe_with(runs_root))
    assert find_run(run.path).path == run.path
    assert find_run("small", runs_root).path == run.path
    with pytest.raises(UserError, match="no such run"):
        find_run("other", runs_root)
    with pytest.raises(UserError, match="is a folder but no run"):
        find_run(runs_root)


def test_a_look_at_the_lock_neither_takes_it_nor_stops_a_start(runs_root: Path) -> None:
    run, _ = open_run(recipe_with(runs_root))
    assert run.is_held()
    run.release()
    assert not run.is_held()
    with run.lock_file.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.02, looking.close).start()
        run.lock()
    run.release()
    run.lock_file.unlink()
    assert not run.is_held()
