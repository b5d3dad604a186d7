"""ifvit/config/addresses.py"""

import pytest

from ifvit.config.addresses import address_in, is_address, public_text


@pytest.mark.parametrize(
    "folder, expected",
    [
        ("https://host/a", "https://host/a/train"),
        ("https://host/a/", "https://host/a/train"),
        ("https://host/a?sig=b/c", "https://host/a/train?sig=b/c"),
        ("s3://bucket", "s3://bucket/train"),
    ],
)
def test_addresses_in_a_folder(folder: str, expected: str) -> None:
    assert address_in(folder, "train") == expected
    assert is_address(folder) and not is_address("/data/train") and not is_address("data:/x")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://user:pass@host/a/b?sig=x/y@z#f", "https://host/a/b"),
        (
            "--set data.shards_root=s3://key:secret@bucket/a --set b=c?d",
            "--set data.shards_root=s3://bucket/a --set b=c?d",
        ),
        ("https://host/a@b", "https://host/a@b"),
        ("/local/a?b", "/local/a?b"),
        ("two: http://u@h/x?y http://v:w@k", "two: http://h/x http://k"),
    ],
)
def test_what_may_be_shown(text: str, expected: str) -> None:
    assert public_text(text) == expected
