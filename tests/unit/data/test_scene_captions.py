"""ifvit/data/scene_captions.py; that captions are true to drawn scenes is tested in data_prep/test_scene_truth.py."""

import random
from itertools import product

import pytest

from ifvit.data.scene_captions import captions, noun_phrase, parse_caption
from ifvit.data.scenes import COLORS, INVERSE_RELATIONS, MAX_COUNT, RELATIONS, SHAPES, Description, Group

GROUPS = [Group(*kind) for kind in product(range(1, MAX_COUNT + 1), COLORS, SHAPES)]
SIZES = ("small", "large", "")


@pytest.mark.parametrize(
    "group, options, phrase",
    [
        (Group(1, "red", "star"), {}, "a red star"),
        (Group(1, "orange", "square"), {}, "an orange square"),
        (Group(1, "orange", "square"), {"size": "small"}, "a small orange square"),
        (Group(1, "orange", "square"), {"spelled_one": True}, "one orange square"),
        (Group(2, "blue", "cross"), {"size": "large"}, "two large blue crosses"),
        (Group(5, "green", "triangle"), {"spelled_one": True}, "five green triangles"),
    ],
)
def test_noun_phrases(group: Group, options: dict[str, object], phrase: str) -> None:
    assert noun_phrase(group, **options) == phrase  # type: ignore[arg-type]


def test_captions_of_one_group_are_read_back() -> None:
    generator = random.Random(0)
    for group, size in product(GROUPS, SIZES):
        texts = captions(Description((group,)), (size,), ("dark", "striped"), 7, generator)
        assert {parse_caption(text) for text in texts} == {Description((group,))}


@pytest.mark.parametrize("relation", RELATIONS)
def test_captions_of_two_groups_are_read_back(relation: str) -> None:
    generator = random.Random(relation)
    for _ in range(200):
        first, second = generator.sample(GROUPS, 2)
        if (first.color, first.shape) == (second.color, second.shape):
            continue
        sizes = (generator.choice(SIZES), generator.choice(SIZES))
        texts = captions(Description((first, second), relation), sizes, ("light", "plain"), 7, generator)
        stated = Description((first, second), relation)
        inverse = Description((second, first), INVERSE_RELATIONS[relation])
        silent = Description((first, second))
        found = [parse_caption(text) for text in texts]
        assert [found.count(each) for each in (stated, inverse, silent)] == [3, 2, 2], texts


def test_phrasings_differ_while_there_are_some_left() -> None:
    scene = Description((Group(2, "red", "star"),))
    texts = captions(scene, ("",), ("grey", "checked"), 7, random.Random(0))
    assert len(set(texts)) == 7
    assert len(captions(scene, ("",), ("grey", "checked"), 16, random.Random(0))) == 16


@pytest.mark.parametrize(
    "text, description",
    [
        ("  Three RED\nstars ", Description((Group(3, "red", "star"),))),
        (
            "A red circle, to the left of one large blue cross.",
            Description((Group(1, "red", "circle"), Group(1, "blue", "cross")), "left of"),
        ),
        (
            "left of me there are two green squares and a purple star",  # no relation between the two
            Description((Group(2, "green", "square"), Group(1, "purple", "star"))),
        ),
    ],
)
def test_other_texts_with_the_same_words_are_read(text: str, description: Description) -> None:
    assert parse_caption(text) == description


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a man riding a wave on a surfboard",
        "red stars",  # no count
        "six red stars",
        "a mauve star",
        "a red hexagon",
        "three stars",
        "a red star above a blue star above a green star",
        "three red stars and seven blue circles",
        "three red stars on a square",
        "a picture of three red stars and some circles",
        "twenty one red stars",
        "twenty-two red stars",
        "one hundred and two red stars",
        "1 two red stars",
        "one two red stars",
    ],
)
def test_texts_that_describe_no_scene(text: str) -> None:
    assert parse_caption(text) is None
