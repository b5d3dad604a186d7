"""ifvit/evaluation/protocol.py"""

from ifvit.evaluation.protocol import content, differing_fields, short_digest


def test_differing_fields_are_dotted_and_complete() -> None:
    first = {"seed": 0, "splits": {"val": {"num_images": 500}, "unseen": {"num_images": 500}}, "omega": 1.0}
    second = {"seed": 0, "splits": {"val": {"num_images": 400}}, "omega": 3.0, "solver": "x"}
    assert differing_fields(first, second) == [
        "splits.val.num_images", "splits.unseen.num_images", "omega", "solver",
    ]  # fmt: skip
    assert differing_fields(first, dict(reversed(first.items()))) == []


def test_the_digest_is_of_values_not_of_order() -> None:
    assert short_digest({"a": 1, "b": 2}) == short_digest({"b": 2, "a": 1}) != short_digest({"a": 1, "b": 3})
    assert len(short_digest({})) == 8


def test_content_is_without_names() -> None:
    identity = {"name": "here", "sha256": "0", "random": False, "tokenizer": "there", "tokenizer_sha256": "1"}
    assert content(identity) == {"sha256": "0", "tokenizer_sha256": "1"}
