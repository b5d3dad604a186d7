"""Checkpoints on disk: whole or absent, verified before use, damaged ones named, reassembled from any split."""

import re
from pathlib import Path

import pytest
import torch

from ifvit.checkpoint import verification
from ifvit.checkpoint.layout import MANIFEST, rank_file, saved_steps, step_folder
from ifvit.checkpoint.load import Checkpoint, chosen_checkpoint, newest_checkpoint
from ifvit.checkpoint.manifest import DamagedCheckpointError, Manifest, Part, StoredParameter
from ifvit.checkpoint.saver import CheckpointSaver
from ifvit.checkpoint.tensor_file import write_tensor_file
from ifvit.checkpoint.verification import verify
from ifvit.config.errors import UserError
from ifvit.data.sealed_json import sealed_json, unsealed
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.files import file_sha256
from tests.saved_states import MODEL, make_saver, progress_of, save, values_of


@pytest.fixture
def saver(tmp_path: Path) -> CheckpointSaver:
    return make_saver(tmp_path)


def test_what_was_saved_is_read_back(saver: CheckpointSaver, tmp_path: Path) -> None:
    save(saver, 4)
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.manifest.progress == progress_of(4)
    for kind, (weight, bias) in values_of(4).items():
        read = checkpoint.read_all(kind)
        assert torch.equal(read["weight"], weight.view(3, 5))
        assert torch.equal(read["bias"], bias)
        assert torch.equal(checkpoint.read(kind, "weight", 3, 7), weight[3:10])


def test_a_closed_checkpoint_holds_no_file(saver: CheckpointSaver, tmp_path: Path) -> None:
    save(saver, 4)
    checkpoint = chosen_checkpoint(tmp_path, 4)
    weight = checkpoint.read("weights", "weight", 3, 7)
    checkpoint.close()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert torch.equal(weight, values_of(4)["weights"][0][3:10])


def test_what_changes_after_the_copy_is_not_saved(saver: CheckpointSaver, tmp_path: Path) -> None:
    values = values_of(4)
    saver.start(progress_of(4), values)
    for tensors in values.values():
        torch._foreach_zero_(tensors)
    saver.wait()
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert torch.equal(checkpoint.read_all("weights")["bias"], values_of(4)["weights"][1])


def test_parameters_are_joined_from_the_parts_of_several_ranks(tmp_path: Path) -> None:
    """One parameter of ten elements on three ranks, cut at 4 and 7."""
    whole = torch.arange(10.0)
    parts, files = [], {}
    for rank, (start, stop) in enumerate([(0, 4), (4, 7), (7, 10)]):
        name = rank_file(rank, "weights")
        files[name] = write_tensor_file(tmp_path / name, [("weights/weight", stop - start)], whole[start:stop])
        parts.append(Part(rank, start, stop - start))
    stored = {"weight": StoredParameter((2, 5), tuple(parts))}
    manifest = Manifest(progress_of(1), 3, 1, MODEL, "", ("weights",), stored, files)
    checkpoint = Checkpoint(tmp_path, manifest)
    assert torch.equal(checkpoint.read_all("weights")["weight"], whole.view(2, 5))
    for start in range(10):
        for stop in range(start + 1, 11):
            assert torch.equal(checkpoint.read("weights", "weight", start, stop - start), whole[start:stop])


def test_leftovers_of_a_killed_process_are_neither_used_nor_kept(saver: CheckpointSaver, tmp_path: Path) -> None:
    save(saver, 1)
    leftovers = [tmp_path / ".unfinished-step-00000009.1", tmp_path / ".removed-step-00000008"]
    for leftover in leftovers:
        leftover.mkdir()
        (leftover / MANIFEST).write_text("{}")
    newest = newest_checkpoint(tmp_path)
    assert newest is not None and newest.manifest.step == 1
    make_saver(tmp_path)
    assert [leftover for leftover in leftovers if leftover.exists()] == []


def damage_flip(folder: Path) -> None:
    flip_byte(folder / rank_file(0, "exp_avg"), -3)


def damage_cut(folder: Path) -> None:
    file = folder / rank_file(0, "weights")
    file.write_bytes(file.read_bytes()[:-1])


def flip_byte(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)


DAMAGES = {
    "flip": (damage_flip, "rank-00000.exp_avg.safetensors has another sha256"),
    "cut": (damage_cut, "rank-00000.weights.safetensors has [0-9]+ bytes instead of"),
    "file gone": (
        lambda folder: (folder / rank_file(0, "weights")).unlink(),
        "rank-00000.weights.safetensors is missing",
    ),
    "manifest gone": (lambda folder: (folder / MANIFEST).unlink(), "manifest.json is missing"),
    "manifest cut": (
        lambda folder: (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-5]),
        "manifest.json cannot be read: its content_sha256 differs",
    ),
    "manifest changed": (
        lambda folder: (folder / MANIFEST).write_text(
            (folder / MANIFEST).read_text().replace('"skipped_batches": 2', '"skipped_batches": 3')
        ),
        "manifest.json cannot be read: its content_sha256 differs",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_named_and_passed_over(
    damage: str, saver: CheckpointSaver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    function, message = DAMAGES[damage]
    save(saver, 1)
    save(saver, 2)
    function(step_folder(tmp_path, 2))
    with pytest.raises(DamagedCheckpointError, match=message):
        verify(step_folder(tmp_path, 2))
    newest = newest_checkpoint(tmp_path)
    assert newest is not None and newest.manifest.step == 1
    assert re.search(f"rejected checkpoint .*step-00000002: {message}", capsys.readouterr().err)
    with pytest.raises(UserError, match="step-00000002: damaged"):
        chosen_checkpoint(tmp_path, 2)
    function(step_folder(tmp_path, 1))
    with pytest.raises(UserError, match="no checkpoint is intact"):
        newest_checkpoint(tmp_path)


def test_the_ranks_share_the_reading(saver: CheckpointSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(saver, 1)
    folder, read = step_folder(tmp_path, 1), []
    monkeypatch.setattr(verification, "file_sha256", lambda path: read.append(path.name) or file_sha256(path))
    for rank in range(3):
        verify(folder, Ranks(rank, rank, 3))
    assert sorted(read) == ["rank-00000.exp_avg.safetensors", "rank-00000.weights.safetensors"]


def test_swapped_files_are_found(saver: CheckpointSaver, tmp_path: Path) -> None:
    save(saver, 1)
    save(saver, 2)
    one, two = (step_folder(tmp_path, step) / rank_file(0, "weights") for step in (1, 2))
    one.rename(tmp_path / "moved")
    two.rename(one)
    (tmp_path / "moved").rename(two)
    with pytest.raises(UserError, match="no checkpoint is intact"):
        newest_checkpoint(tmp_path)


def test_another_format_version_is_refused(
    saver: CheckpointSaver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(saver, 1)
    file = step_folder(tmp_path, 1) / MANIFEST
    file.write_bytes(sealed_json(unsealed(file.read_bytes()) | {"format_version": 99}))
    with pytest.raises(UserError, match="no checkpoint is intact"):
        newest_checkpoint(tmp_path)
    assert "manifest.json has format version 99, this ifvit reads 2" in capsys.readouterr().err


def test_nothing_saved_is_none_and_a_wrong_step_is_named(saver: CheckpointSaver, tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    with pytest.raises(UserError, match="no checkpoint was saved yet"):
        chosen_checkpoint(tmp_path)
    save(saver, 5)
    with pytest.raises(UserError, match="no checkpoint of step 4, only of 5"):
        chosen_checkpoint(tmp_path, 4)
    assert saved_steps(tmp_path) == [5]
