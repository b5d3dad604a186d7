"""ifvit/encoders/random_weights.py"""

from pathlib import Path

import pytest
import torch

from ifvit.encoders.identity import state_digest
from ifvit.encoders.locate import RANDOM_MARK
from ifvit.encoders.random_weights import built_once, random_autoencoder_folder
from ifvit.encoders.untrained import byte_characters


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ifvit" / "encoders"


def test_weights_are_the_same_in_every_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (random_autoencoder_folder() / "diffusion_pytorch_model.safetensors").read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    torch.manual_seed(99)  # what the process drew before plays no part
    assert (random_autoencoder_folder() / "diffusion_pytorch_model.safetensors").read_bytes() == first


def test_the_caller_s_random_state_stays() -> None:
    before = torch.get_rng_state()
    random_autoencoder_folder()
    assert torch.equal(torch.get_rng_state(), before)


def test_built_once_and_marked_as_random(cache: Path) -> None:
    def save(folder: Path) -> None:
        (folder / "weights").write_text(str(torch.rand(1).item()))

    folder = built_once("thing", save)
    assert (folder / RANDOM_MARK).is_file()
    assert built_once("thing", lambda _: pytest.fail("built twice")) == folder
    assert [path.name for path in cache.iterdir()] == ["thing"]


def test_a_process_that_was_faster_wins(cache: Path) -> None:
    def save(folder: Path) -> None:
        (folder / "weights").write_text("slower")
        (cache / "thing").mkdir()
        (cache / "thing" / "weights").write_text("faster")

    assert (built_once("thing", save) / "weights").read_text() == "faster"
    assert [path.name for path in cache.iterdir()] == ["thing"]


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    def save(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        built_once("thing", save)
    assert list(cache.iterdir()) == []


def test_every_byte_has_its_own_printable_character() -> None:
    characters = byte_characters()
    assert len(set(characters)) == 256
    assert all(character.isprintable() for character in characters)
    assert characters[ord("a")] == "a"
    assert characters[ord(" ")] == "\u0120"


def test_digest_sees_names_shapes_and_values() -> None:
    state = {"a": torch.arange(4.0), "b": torch.ones(2)}
    variants = [
        state,
        {"a": torch.arange(4.0).reshape(2, 2), "b": torch.ones(2)},
        {"a": torch.arange(4.0), "c": torch.ones(2)},
        {"a": torch.arange(4.0) + 1e-6, "b": torch.ones(2)},
    ]
    assert len({state_digest(variant) for variant in variants}) == 4
    assert state_digest(dict(reversed(state.items()))) == state_digest(state)
    assert state_digest({"text_model.a": torch.ones(1)}, "text_model.") == state_digest({"a": torch.ones(1)})
