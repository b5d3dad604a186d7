"""Which rank is slow, and in what."""

from ifvit.training.stragglers import slow_ranks


def seconds(data: float = 0.1, forward: float = 0.3, backward: float = 0.6) -> dict[str, float]:
    return {"data": data, "forward": forward, "backward": backward}


def test_ranks_that_are_about_equal_are_not_slow() -> None:
    assert slow_ranks([seconds(), seconds(forward=0.6), seconds(data=0.2)], 1.5) == {}


def test_the_slow_rank_and_its_phase_are_named() -> None:
    slow = slow_ranks([seconds(), seconds(data=4.1), seconds(), seconds(forward=0.4)], 1.5)
    assert list(slow) == [1]
    assert slow[1] == (
        "takes 5 s of a step by itself, the median rank 1 s; most of it in data: 4.1 s, the median rank 0.1 s"
    )


def test_of_two_ranks_the_slower_one_is_named() -> None:
    assert list(slow_ranks([seconds(backward=1.6), seconds()], 1.5)) == [0]
