"""ifvit/data/captions.py: fault F23 of the fault table, as far as it is text."""

import pytest

from ifvit.data.captions import MAX_CHARACTERS, MAX_PROMPTS, caption_fault, usable_captions

GOOD = [
    "A red bus.",
    "  spaces around \n",
    "\x1b[31mred\x1b[0m and \x07",
    "\u202eright to left\u202c אבג",
    "a cat 🐈‍⬛",
    "the end <|endoftext|> goes on",
    "a" * MAX_CHARACTERS,
]
BAD = [
    ("", "empty"),
    (" \n\t\u3000", "empty"),
    ("a\0b", "NUL character"),
    ("a" * (MAX_CHARACTERS + 1), "too long"),
    ("a" * 100_000, "too long"),
    ("\ud83d", "invalid utf-8"),
    (b"caf\xe9".decode("utf-8", "surrogateescape"), "invalid utf-8"),
    (None, "not text"),
    (5, "not text"),
    (["a"], "not text"),
]


@pytest.mark.parametrize("caption", GOOD)
def test_unusual_text_is_text(caption: str) -> None:
    assert caption_fault(caption) is None
    assert usable_captions([caption]) == ((caption,), {})


@pytest.mark.fault(
    "F23",
    injected="each kind of unusable caption",
    detected="its reason",
    recovered="the image's other captions are used",
    lost="the caption, counted",
)
@pytest.mark.parametrize("caption, fault", BAD)
def test_a_bad_caption_has_a_reason(caption: object, fault: str) -> None:
    assert caption_fault(caption) == fault


def test_bad_captions_are_dropped_and_counted_the_others_keep_their_order() -> None:
    prompts, dropped = usable_captions(["one", "", "two", "\0", " ", "three"])
    assert prompts == ("one", "two", "three")
    assert dropped == {"empty": 2, "NUL character": 1}


@pytest.mark.parametrize("number", [0, 50, MAX_PROMPTS])
def test_any_number_up_to_the_limit(number: int) -> None:
    assert usable_captions(map(str, range(number))) == (tuple(map(str, range(number))), {})


def test_those_beyond_the_limit_are_dropped() -> None:
    prompts, dropped = usable_captions(map(str, range(MAX_PROMPTS + 7)))
    assert prompts == tuple(map(str, range(MAX_PROMPTS)))
    assert dropped == {"too many": 7}
