"""ifvit/data/sealed_json.py"""

import json
import math
import sys

import pytest

from ifvit.data.sealed_json import seal, sealed_json, unsealed

VALUES = {"text": 'a "b" \n \ud800 ü 猫', "number": 0.1 + 0.2, "list": [1, {"a": None}], "nan": math.inf, "empty": {}}


def test_what_is_sealed_comes_back() -> None:
    assert unsealed(sealed_json(VALUES)) == VALUES
    assert list(unsealed(sealed_json(VALUES))) == list(VALUES)


def test_a_sealed_file_is_json_like_any_other() -> None:
    values = json.loads(sealed_json(VALUES))
    assert len(values.pop("content_sha256")) == 64
    assert values == VALUES


def test_every_flipped_bit_is_seen() -> None:
    content = sealed_json(VALUES)
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="its content_sha256 differs"):
            unsealed(bytes(flipped))


@pytest.mark.parametrize(
    "edit", [lambda c: b"", lambda c: c[:-1], lambda c: c + b"\n", lambda c: b" " + c, lambda c: c[5:]]
)
def test_what_is_cut_or_added_is_seen(edit) -> None:
    with pytest.raises(ValueError):
        unsealed(edit(sealed_json(VALUES)))


def test_json_without_a_seal_is_refused() -> None:
    with pytest.raises(ValueError, match="content_sha256"):
        unsealed(json.dumps(VALUES, indent=1).encode())


def test_what_is_nested_too_deeply_is_refused() -> None:
    depth = 10 * sys.getrecursionlimit()
    body = b'{\n "a": ' + b"[" * depth + b"]" * depth
    with pytest.raises(ValueError, match="nested too deeply"):
        unsealed(body + seal(body + b"\n}"))
