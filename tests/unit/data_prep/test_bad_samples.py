"""data_prep/bad_samples.py"""

import json
from collections import Counter

import pytest

from data_prep.bad_samples import BadLimit, Quarantine, Tally, check_share, count_ignored
from data_prep.listed_sample import NO_CAPTIONS, ListedSample
from ifvit.config.errors import UserError


def tally(**ids: list[int]) -> Tally:
    result = Tally()
    for reason, some in ids.items():
        for id_ in some:
            result.add(reason, id_, f"{id_}.jpg")
    return result


def test_counts_with_the_first_ids() -> None:
    assert str(tally(torn=[4], damaged=[3, 7])) == "2 damaged (ids 3, 7; the first is 3.jpg), 1 torn (id 4, 4.jpg)"
    many = tally(damaged=list(range(1200)))
    assert str(many) == "1,200 damaged (ids 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...; the first is 0.jpg)"
    assert many.total == 1200
    again = Tally.from_json(json.loads(json.dumps(many.as_json())))
    assert str(again) == str(many)
    again.add("damaged", 1200, "1200.jpg")
    assert (again.total, many.total) == (1201, 1200)


def test_the_place_of_the_first_is_short_and_on_one_line() -> None:
    bad = Tally()
    bad.add("damaged", 3, "folder\n" * 100 + "3.jpg")
    shown = "folder\\n" * 100 + "3.jpg"
    assert str(bad) == f"1 damaged (id 3, ...{shown[-57:]})"
    assert str(Tally.from_json({"torn": {"count": 1, "ids": [4]}})) == "1 torn (id 4)"


@pytest.mark.parametrize(
    "num_bad, share, is_allowed", [(0, 0.0, True), (1, 0.0, False), (1, 0.1, True), (2, 0.1, False)]
)
def test_the_share_is_a_limit(num_bad: int, share: float, is_allowed: bool) -> None:
    bad = tally(damaged=list(range(num_bad)))
    if is_allowed:
        check_share(bad, 10, share, "captions")
        return
    with pytest.raises(UserError, match=r"^data\.max_bad_share: allows .* of the 10 captions .* damaged .*--set"):
        check_share(bad, 10, share, "captions")


def test_the_limit_stops_at_the_first_one_too_many_and_tells_it() -> None:
    limit = BadLimit(0.3, 10, tally(torn=[8, 9]))
    quarantine = Quarantine(limit)
    quarantine.add(ListedSample(8, "8.jpg", (), fault=NO_CAPTIONS), NO_CAPTIONS, "known since the listing")
    quarantine.add(ListedSample(1, "1.jpg", ("a",)), "damaged", "cannot be decoded")
    message = r"2 damaged \(ids 1, 2; the first is 1\.jpg\), 2 torn \(.*8\.jpg\); image 2: 2\.jpg: is no image;"
    with pytest.raises(UserError, match=message):
        quarantine.add(ListedSample(2, "2.jpg", ("a",)), "damaged", "is no image")
    assert quarantine.entries[1] == {"id": 1, "image": "1.jpg", "reason": "damaged", "detail": "cannot be decoded"}


def test_of_many_kinds_of_ignored_files_few_are_told_apart() -> None:
    ignored: Counter[str] = Counter()
    for suffix in ["", ".md", ".md", "." + "x" * 1000, ".\x1b[31m", *(f".{number}" for number in range(1000)), ".md"]:
        count_ignored(ignored, suffix)
    assert len(ignored) == 21
    assert (ignored["(no suffix)"], ignored[".md"], ignored[".\\x1b[31m"], ignored["x" * 20]) == (1, 3, 1, 1)
    assert sum(ignored.values()) == 1006
