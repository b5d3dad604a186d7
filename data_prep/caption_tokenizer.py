"""A CLIP tokenizer learned from captions: each of their words becomes one token; all other text is spelled in bytes."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from ifvit.encoders.untrained import WORD_END, save_tokenizer

Pair = tuple[str, str]


def save_caption_tokenizer(captions: Iterable[str], folder: Path, num_text_tokens: int) -> None:
    """Write a `CLIPTokenizer` folder for ASCII `captions`. The same captions give the same bytes."""
    words = Counter(word for caption in captions for word in caption.lower().split())
    save_tokenizer(folder, learned_merges(words), num_text_tokens)


def learned_merges(words: Counter[str]) -> list[Pair]:
    """Byte-pair encoding's merges until each of the counted words is one token, the most frequent pair first.

    Of equally frequent pairs the first in the alphabet: the trainer of the tokenizers library takes any of them.
    """
    spellings = {word: (*word[:-1], word[-1] + WORD_END) for word in words}
    merges: list[Pair] = []
    while True:
        pairs: Counter[Pair] = Counter()
        for word, spelling in spellings.items():
            for pair in pairwise(spelling):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        spellings = {word: merged(spelling, merges[-1]) for word, spelling in spellings.items()}


def merged(spelling: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    """`spelling` with each occurrence of `pair` as one part."""
    parts: list[str] = []
    for part in spelling:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)
