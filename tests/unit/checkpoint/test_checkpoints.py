"""Checkpoints on disk: whole or absent, verified before use, damaged ones named, reassembled from any split."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ifvit.checkpoint.hook import refuse_non_finite
from ifvit.checkpoint.layout import MANIFEST, rank_file, saved_steps, step_folder
from ifvit.checkpoint.load import Checkpoint, chosen_checkpoint, newest_checkpoint
from ifvit.checkpoint.manifest import DamagedCheckpointError, Manifest, Part, StoredParameter, verify
from ifvit.checkpoint.save import save_checkpoint, write_rank_file
from ifvit.config.errors import UserError
from ifvit.config.schema import ModelConfig
from ifvit.runtime.distributed import Ranks
from ifvit.training.fragments import Fragment
from ifvit.training.state import BadStepsRecord, NonFiniteError, TrainState

MODEL = ModelConfig().model_dump(mode="json")


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def save(module: nn.Module, checkpoints: Path, step: int, keep_last: int = 3) -> dict[str, Tensor]:
    fragments = [
        Fragment(name, 0, parameter.data.view(-1), parameter, 0) for name, parameter in module.named_parameters()
    ]
    values = {"weights": [fragment.weight for fragment in fragments]}
    values["exp_avg"] = [fragment.weight * 2 for fragment in fragments]
    checkpoints.mkdir(exist_ok=True)
    save_checkpoint(
        checkpoints, TrainState(step, step * 4), module, fragments, values,
        model=MODEL, zero_stage=1, ranks=Ranks(), keep_last=keep_last,
    )  # fmt: skip
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def test_what_rollbacks_left_out_is_remembered(module: nn.Module, tmp_path: Path) -> None:
    bad_steps = BadStepsRecord(total=5, in_a_row=1, last_batch=11, rollbacks=1, good_losses=[0.1, 1 / 3])
    state = TrainState(8, 32, skipped_batches=4, bad_steps=bad_steps)
    fragments = [Fragment(name, 0, each.data.view(-1), each, 0) for name, each in module.named_parameters()]
    folder = save_checkpoint(
        tmp_path, state, module, fragments, {"weights": [fragment.weight for fragment in fragments]},
        model=MODEL, zero_stage=1, ranks=Ranks(), keep_last=3,
    )  # fmt: skip
    manifest = verify(folder)
    assert (manifest.skipped_batches, manifest.bad_steps) == (4, bad_steps)
    values = json.loads((folder / MANIFEST).read_text())
    del values["skipped_batches"], values["bad_steps"]  # as in a checkpoint of before
    (folder / MANIFEST).write_text(json.dumps(values))
    assert (verify(folder).skipped_batches, verify(folder).bad_steps) == (0, BadStepsRecord())


def test_what_was_saved_is_read_back(module: nn.Module, tmp_path: Path) -> None:
    weights = save(module, tmp_path / "checkpoints", 4)
    checkpoint = newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.manifest.step, checkpoint.manifest.samples_seen) == (4, 16)
    read = checkpoint.read_all("weights")
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert torch.equal(checkpoint.read("exp_avg", "weight", 3, 7), 2 * weights["weight"].flatten()[3:10])


def test_parameters_are_joined_from_the_parts_of_several_ranks(tmp_path: Path) -> None:
    """One parameter of ten elements on three ranks, cut at 4 and 7."""
    whole = torch.arange(10.0)
    parts, files = [], {}
    for rank, (start, stop) in enumerate([(0, 4), (4, 7), (7, 10)]):
        fragment = Fragment("weight", start, whole[start:stop], whole, start)
        files |= write_rank_file(tmp_path / rank_file(rank), [fragment], {"weights": [fragment.weight]})
        parts.append(Part(rank, start, stop - start))
    stored = {"weight": StoredParameter((2, 5), tuple(parts))}
    checkpoint = Checkpoint(tmp_path, Manifest(1, 4, 3, 1, MODEL, ("weights",), stored, files))
    assert torch.equal(checkpoint.read_all("weights")["weight"], whole.view(2, 5))
    for start in range(10):
        for stop in range(start + 1, 11):
            assert torch.equal(checkpoint.read("weights", "weight", start, stop - start), whole[start:stop])


def test_only_the_newest_are_kept(module: nn.Module, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(module, tmp_path, step, keep_last=2)
    assert saved_steps(tmp_path) == [3, 4]


def test_leftovers_of_a_killed_process_are_neither_used_nor_kept(module: nn.Module, tmp_path: Path) -> None:
    save(module, tmp_path, 1)
    leftover = tmp_path / ".unfinished-step-00000009"
    leftover.mkdir()
    (leftover / MANIFEST).write_text("{}")
    newest = newest_checkpoint(tmp_path)
    assert newest is not None and newest.manifest.step == 1
    save(module, tmp_path, 2)
    assert not leftover.exists()


def damage_flip(folder: Path) -> None:
    file = folder / rank_file(0)
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)


def damage_cut(folder: Path) -> None:
    file = folder / rank_file(0)
    file.write_bytes(file.read_bytes()[:-1])


def damage_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:-5])


DAMAGES = {
    "flip": (damage_flip, "rank-00000.safetensors has another sha256"),
    "cut": (damage_cut, "rank-00000.safetensors has [0-9]+ bytes instead of"),
    "file gone": (lambda folder: (folder / rank_file(0)).unlink(), "rank-00000.safetensors is missing"),
    "manifest gone": (lambda folder: (folder / MANIFEST).unlink(), "manifest.json is missing"),
    "manifest cut": (damage_manifest, "manifest.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_named_and_passed_over(
    damage: str, module: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    function, message = DAMAGES[damage]
    save(module, tmp_path, 1)
    save(module, tmp_path, 2)
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


def test_swapped_files_are_found(module: nn.Module, tmp_path: Path) -> None:
    save(module, tmp_path, 1)
    module.weight.data += 1
    save(module, tmp_path, 2)
    one, two = (step_folder(tmp_path, step) / rank_file(0) for step in (1, 2))
    one.rename(tmp_path / "moved")
    two.rename(one)
    (tmp_path / "moved").rename(two)
    with pytest.raises(UserError, match="no checkpoint is intact"):
        newest_checkpoint(tmp_path)


def test_another_format_version_is_refused(
    module: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(module, tmp_path, 1)
    file = step_folder(tmp_path, 1) / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 99}))
    with pytest.raises(UserError, match="no checkpoint is intact"):
        newest_checkpoint(tmp_path)
    assert "format version 99" in capsys.readouterr().err


def test_nothing_saved_is_none_and_a_wrong_step_is_named(module: nn.Module, tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    with pytest.raises(UserError, match="no checkpoint was saved yet"):
        chosen_checkpoint(tmp_path)
    save(module, tmp_path, 5)
    with pytest.raises(UserError, match="no checkpoint of step 4, only of 5"):
        chosen_checkpoint(tmp_path, 4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_not_saved(bad: float) -> None:
    fine, broken = torch.full((3,), 1e30), torch.tensor([0.0, bad])
    refuse_non_finite({"weights": [fine, fine], "exp_avg": [fine]}, step=3)
    with pytest.raises(NonFiniteError, match="not finite at step 3"):
        refuse_non_finite({"weights": [fine, fine], "exp_avg": [broken]}, step=3)
