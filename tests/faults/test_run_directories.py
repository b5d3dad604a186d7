"""Where a run lies: in use already, read-only, or below names that shells and programs stumble over."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from ifvit.commands.main import main
from ifvit.config.errors import UserError
from ifvit.runtime.run_directory import RunDirectory, open_run
from tests.distributed.training_runs import assert_bit_equal
from tests.drawn_coco import tiny_recipe
from tests.training_fixtures import Train

NOBODY = 65534
NAME = 'a b\'c "d" ünï 中 $HOME ; & (x) %s {y} \u202e'


@pytest.mark.fault(
    "F26",
    injected="a training of two ranks on a run that another process holds",
    detected="refused on both ranks with exit code 2; process and host are named",
    recovered="the same command goes on when the other has ended",
    lost="nothing",
)
def test_a_second_job_is_refused_on_all_ranks(train: Train, tmp_path: Path) -> None:
    assert train(2, tmp_path, "train.max_steps=1") == [0, 0]
    held = RunDirectory(tmp_path / "tiny")
    held.lock()
    message, code = train(2, tmp_path, "train.max_steps=2")
    assert f"is being trained by process {os.getpid()} on " in str(message) and code == 2
    held.release()
    assert train(2, tmp_path, "train.max_steps=2") == [0, 0]


@pytest.mark.fault(
    "F26",
    injected="a folder that may be read and not written as runtime.runs_root",
    detected="one line names the field, the run and the reason",
    recovered="another folder is given",
    lost="nothing",
)
def test_a_read_only_folder_is_one_clear_line() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        recipe = tiny_recipe(Path("/nowhere"), Path("/nowhere"), f"runtime.runs_root={folder}")
        os.seteuid(user or NOBODY)  # no mode keeps root out
        try:
            with pytest.raises(UserError, match=r"^runtime\.runs_root: cannot write the run .*: Permission denied; "):
                open_run(recipe)
        finally:
            os.seteuid(user)
        assert not list(Path(folder).iterdir())


@pytest.mark.fault(
    "F26",
    injected="spaces, quotes, letters of other scripts and shell characters in the paths of run and shards",
    detected="-",
    recovered="training, resume, export and sampling are those of a run with plain paths",
    lost="nothing",
)
def test_paths_may_hold_anything(train: Train, undisturbed: Path, shards_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    shutil.copytree(shards_root, folder / "shards")
    for last_step in (5, 8):
        overrides = [f"train.max_steps={last_step}"]
        assert train(1, folder / "runs", *overrides, shards_root=folder / "shards") == [0]
    assert_bit_equal(folder / "runs", undisturbed)
    assert main(["export", str(folder / "runs/tiny"), "--out", str(folder / "model")]) == 0
    sampling = ["--prompt", "a", "--num-inference-steps", "3", "--out", str(folder / "samples")]
    assert main(["sample", str(folder / "model"), *sampling]) == 0
    assert (folder / "samples/grid.png").is_file()
