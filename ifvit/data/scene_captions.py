"""Scenes in words, and back: captions in several phrasings, and what a caption asks for."""

import random
import re
from collections.abc import Iterable

from ifvit.data.scenes import COLORS, INVERSE_RELATIONS, PATTERNS, SHAPES, TONES, Description, Group

COUNT_WORDS = ("one", "two", "three", "four", "five")
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
SINGLE_PHRASES = (
    "{first}",
    "{first} on {background}",
    "a picture of {first}",
    "there {verb} {first}",
    "there {verb} {first} on {background}",
    "an image with {first}",
    "{first} and nothing else",
)
PAIR_PHRASES = (
    "{first} {relation} {second}",
    "{second} {inverse} {first}",
    "there {verb} {first} {relation} {second}",
    "a picture of {first} {relation} {second}",
    "{second} {inverse} {first} on {background}",
    "{first} and {second}",
    "{first} and {second} on {background}",
)
RELATION_PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below", "under"),
}
RELATION_OF_PHRASE = {phrase: relation for relation, phrases in RELATION_PHRASES.items() for phrase in phrases}
SHAPE_OF_WORD = {word: shape for shape in SHAPES for word in (shape, PLURALS[shape])}
COUNT_OF_WORD = {"a": 1, "an": 1} | {word: count for count, word in enumerate(COUNT_WORDS, 1)}
# Numbers that no scene's caption has; a caption with one of them asks for other counts than its groups seem to.
LARGER_NUMBERS = (
    *("six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
    *("seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty"),
    *("ninety", "hundred", "thousand", "million", "dozen", "zero"),
)


def any_of(words: Iterable[str]) -> str:
    """A pattern for one of `words`, the longest that fits."""
    return "|".join(sorted(words, key=len, reverse=True))


GROUP = re.compile(rf"\b({any_of(COUNT_OF_WORD)}) (?:(?:small|large) )?({any_of(COLORS)}) ({any_of(SHAPE_OF_WORD)})\b")
# What may not stand beside the groups: a shape or a number that was not read.
UNREAD = re.compile(rf"\b({any_of((*SHAPE_OF_WORD, *COUNT_WORDS, *LARGER_NUMBERS))}|\d+)\b")
RELATION = re.compile(rf"\b({any_of(RELATION_OF_PHRASE)})\b")


def captions(
    scene: Description, sizes: tuple[str, ...], background: tuple[str, str], number: int, generator: random.Random
) -> list[str]:
    """`number` captions of a scene, of different phrasings while there are some left; each of them is true.

    `sizes` has "small", "large" or "" for each group, `background` is a tone and a pattern; a caption may leave out
    sizes, background and relation, never a group or its count.
    """
    phrases = list(SINGLE_PHRASES if len(scene.groups) == 1 else PAIR_PHRASES)
    chosen: list[str] = []
    while len(chosen) < number:
        chosen += generator.sample(phrases, min(len(phrases), number - len(chosen)))
    return [caption(phrase, scene, sizes, background, generator) for phrase in chosen]


def caption(
    phrase: str, scene: Description, sizes: tuple[str, ...], background: tuple[str, str], generator: random.Random
) -> str:
    nouns = [
        noun_phrase(group, size if generator.random() < 0.5 else "", spelled_one=generator.random() < 0.3)
        for group, size in zip(scene.groups, sizes, strict=True)
    ]
    words = {"first": nouns[0], "verb": "is" if scene.groups[0].count == 1 else "are"}
    if scene.relation is not None:
        words |= {
            "second": nouns[1],
            "relation": generator.choice(RELATION_PHRASES[scene.relation]),
            "inverse": generator.choice(RELATION_PHRASES[INVERSE_RELATIONS[scene.relation]]),
        }
    return phrase.format(**words, background=background_phrase(*background, generator))


def noun_phrase(group: Group, size: str = "", spelled_one: bool = False) -> str:
    """ "three small red stars", "an orange square", "one blue cross"."""
    words = [word for word in (size, group.color) if word]
    if group.count > 1:
        return " ".join([COUNT_WORDS[group.count - 1], *words, PLURALS[group.shape]])
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([COUNT_WORDS[0] if spelled_one else article, *words, group.shape])


def background_phrase(tone: str, pattern: str, generator: random.Random) -> str:
    """ "a dark striped background", or with only one of the two words."""
    assert tone in TONES and pattern in PATTERNS, (tone, pattern)
    words = generator.choice(((tone,), (pattern,), (tone, pattern)))
    return f"a {' '.join(words)} background"


def parse_caption(text: str) -> Description | None:
    """What a caption asks for: its one or two groups and, where it says so, their relation. None if it is no scene's.

    Two groups of one color and shape are no scene's: nobody could tell which is which.

    Reads any text whose groups are written as the generator writes them: count, maybe a size, colour, shape. A text
    with more shapes or numbers than that ("two red stars and seven circles", "twenty one red stars") is no scene's.
    """
    text = " ".join(text.lower().split())
    found = list(GROUP.finditer(text))
    if not 1 <= len(found) <= 2 or UNREAD.search(GROUP.sub(" ", text)):
        return None
    groups = tuple(
        Group(COUNT_OF_WORD[count], color, SHAPE_OF_WORD[shape])
        for count, color, shape in (match.groups() for match in found)
    )
    if len(groups) == 1:
        return Description(groups)
    if (groups[0].color, groups[0].shape) == (groups[1].color, groups[1].shape):
        return None
    between = RELATION.search(text, found[0].end(), found[1].start())
    relation = RELATION_OF_PHRASE[between.group()] if between else None
    return Description(groups, relation)
