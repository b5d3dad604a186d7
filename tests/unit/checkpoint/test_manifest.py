"""The manifest of a checkpoint: sealed, whole, and of one recipe."""

from pathlib import Path

import pytest

from ifvit.checkpoint.layout import MANIFEST, step_folder
from ifvit.checkpoint.manifest import parsed_manifest, recipe_sha256, stored_parameters
from tests.drawn_coco import tiny_recipe
from tests.saved_states import make_saver, save


def test_no_change_of_a_byte_goes_unseen(tmp_path: Path) -> None:
    save(make_saver(tmp_path), 1)
    content = (step_folder(tmp_path, 1) / MANIFEST).read_bytes()
    assert parsed_manifest(content).dump() == content
    for position in range(len(content)):
        changed = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        with pytest.raises(ValueError):
            parsed_manifest(changed)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"1", b'{"format_version": 2}', b"[" * 100_000])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        parsed_manifest(content)


@pytest.mark.parametrize("parts", [[[("a", 0, 2)], [("a", 3, 1)]], [[("a", 0, 2)], [("a", 1, 2)]], [[("a", 0, 3)], []]])
def test_every_element_is_written_once(parts: list[list[tuple[str, int, int]]]) -> None:
    assert stored_parameters({"a": (2, 2)}, [[("a", 0, 3)], [("a", 3, 1)]])["a"].parts[1].start == 3
    with pytest.raises(AssertionError, match="a: "):
        stored_parameters({"a": (2, 2)}, parts)


def test_the_recipes_digest_leaves_out_what_may_change_between_starts() -> None:
    def digest(*overrides: str) -> str:
        return recipe_sha256(tiny_recipe(Path("coco"), Path("shards"), *overrides))

    assert digest("train.max_steps=9", "runtime.zero_stage=0", "checkpoint.keep_last=1") == digest()
    assert digest("optimizer.learning_rate=1.0e-3") != digest()
