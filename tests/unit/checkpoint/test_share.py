"""The ranks' shares hold every element once, whether each rank has all of them or its own."""

import pytest
import torch

from ifvit.checkpoint.share import Piece, own_pieces
from ifvit.runtime.distributed import Ranks
from ifvit.training.fragments import Fragment


def fragment(name: str, values: torch.Tensor, start: int = 0) -> Fragment:
    return Fragment(name, start, values, values, 0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 40])
def test_replicated_parameters_are_split_evenly(world_size: int) -> None:
    fragments = [fragment(name, torch.arange(numel)) for name, numel in (("a", 4), ("b", 11), ("c", 2))]
    written: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    sizes = []
    for rank in range(world_size):
        pieces = own_pieces(fragments, Ranks(rank, rank, world_size), is_sharded=False)
        sizes.append(sum(piece.numel for piece in pieces))
        end = 0
        for piece in pieces:
            assert piece.share_start == end
            end += piece.numel
            assert (piece.name, piece.fragment_start) == (fragments[piece.fragment].name, piece.start)
            written[piece.name] += range(piece.start, piece.start + piece.numel)
    assert written == {"a": [*range(4)], "b": [*range(11)], "c": [*range(2)]}
    assert max(sizes) - min(sizes) <= 1


def test_of_sharded_parameters_a_rank_writes_what_it_has() -> None:
    fragments = [
        fragment("a", torch.zeros(3), start=7),
        fragment("empty", torch.zeros(0)),
        fragment("b", torch.zeros(2)),
    ]
    pieces = own_pieces(fragments, Ranks(1, 1, 2), is_sharded=True)
    assert pieces == [Piece("a", 7, 3, 0, 0, 0), Piece("b", 0, 2, 2, 0, 3)]
