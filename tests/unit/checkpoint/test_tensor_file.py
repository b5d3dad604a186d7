"""Files written straight from memory are what safetensors reads, with the digest of what is on the disk."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ifvit.checkpoint import tensor_file
from ifvit.checkpoint.tensor_file import NonFiniteValuesError, write_tensor_file


def test_safetensors_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "ELEMENTS_PER_WRITE", 7)
    values = torch.arange(20.0)
    written = write_tensor_file(tmp_path / "file", [("a", 3), ("b/c", 17)], values)
    content = (tmp_path / "file").read_bytes()
    assert written == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    read = load_file(tmp_path / "file")
    assert torch.equal(read["a"], values[:3]) and torch.equal(read["b/c"], values[3:])


def test_a_share_may_be_empty(tmp_path: Path) -> None:
    write_tensor_file(tmp_path / "file", [], torch.zeros(0))
    assert load_file(tmp_path / "file") == {}


def test_others_may_read_it_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    write_tensor_file(tmp_path / "file", [("a", 1)], torch.zeros(1))
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 10, 19])
def test_what_is_no_number_is_refused(bad: float, position: int, tmp_path: Path) -> None:
    values = torch.full((20,), 3e38)
    values[position] = bad
    with pytest.raises(NonFiniteValuesError):
        write_tensor_file(tmp_path / "file", [("a", 20)], values)
    values[position] = -3e38
    write_tensor_file(tmp_path / "file", [("a", 20)], values)
