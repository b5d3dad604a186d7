"""Which captions can be used. Every other one is dropped for a reason that reports count."""

from collections import Counter
from collections.abc import Iterable

MAX_CHARACTERS = 10_000
MAX_PROMPTS = 100  # of one image; those after them are dropped


def caption_fault(caption: object) -> str | None:
    """Why `caption` cannot be used; None where it can. Escape sequences, bidi marks and emoji are text like other."""
    if not isinstance(caption, str):
        return "not text"
    if len(caption) > MAX_CHARACTERS:
        return "too long"
    try:
        caption.encode()
    except UnicodeEncodeError:  # half a surrogate pair, or bytes that were read with `surrogateescape`
        return "invalid utf-8"
    if "\0" in caption:
        return "NUL character"
    return None if caption.strip() else "empty"


def usable_captions(captions: Iterable[object]) -> tuple[tuple[str, ...], Counter[str]]:
    """The usable ones of an image's `captions`, and how many of the others were dropped for which reason."""
    usable: list[str] = []
    dropped: Counter[str] = Counter()
    for caption in captions:
        if fault := caption_fault(caption):
            dropped[fault] += 1
        elif len(usable) == MAX_PROMPTS:
            dropped["too many"] += 1
        else:
            usable.append(str(caption))
    return tuple(usable), dropped
