"""Which elements of the parameters this rank writes: its own where they are sharded, else an even share of all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ifvit.runtime.distributed import Ranks
from ifvit.training.fragments import Fragment


@dataclass(frozen=True)
class Piece:
    """A contiguous part of one flattened parameter, and where this rank finds and writes it."""

    name: str
    start: int  # in the flattened parameter
    numel: int
    fragment: int  # index of the fragment that holds it
    fragment_start: int  # in that fragment
    share_start: int  # in this rank's share of one kind


def own_pieces(fragments: Sequence[Fragment], ranks: Ranks, *, is_sharded: bool) -> list[Piece]:
    """This rank's share, in order. `is_sharded`: no element is held by two ranks, so each rank writes all it has."""
    total = sum(fragment.weight.numel() for fragment in fragments)
    if is_sharded:
        return list(pieces_between(fragments, 0, total))
    low, high = (total * rank // ranks.world_size for rank in (ranks.rank, ranks.rank + 1))
    return list(pieces_between(fragments, low, high))


def pieces_between(fragments: Sequence[Fragment], low: int, high: int) -> Iterator[Piece]:
    """The elements `low` .. `high` of all fragments laid end to end."""
    begin = 0
    for index, fragment in enumerate(fragments):
        end = begin + fragment.weight.numel()
        first, last = max(begin, low), min(end, high)
        if first < last:
            offset = first - begin
            yield Piece(fragment.name, fragment.start + offset, last - first, index, offset, first - low)
        begin = end
