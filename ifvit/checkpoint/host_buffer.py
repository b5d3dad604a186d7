"""Memory of this machine for one rank's share of a checkpoint, so that training goes on while files are written."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ifvit.checkpoint.share import Piece


class HostBuffer:
    """Room for `pieces` of each of `kinds` in float32, taken at once: a save must not wait for memory, nor find none.

    Attributes:
        rows: by kind what was copied last, (N,) float32 on the CPU, page-locked where the values are on a GPU.
    """

    def __init__(self, kinds: Sequence[str], pieces: Sequence[Piece], device: torch.device) -> None:
        self.pieces = pieces
        numel = sum(piece.numel for piece in pieces)
        self.rows = {kind: torch.empty(numel, pin_memory=device.type == "cuda") for kind in kinds}
        for row in self.rows.values():
            row.zero_()  # touched: the system gives pages only when they are written to

    def copy(self, values: Mapping[str, Sequence[Tensor]]) -> None:
        """Take `values`, by kind one (numel,) float32 tensor per fragment. They may change as soon as this returns."""
        is_on_gpu = False
        for kind, row in self.rows.items():
            for piece in self.pieces:
                value = values[kind][piece.fragment].detach().narrow(0, piece.fragment_start, piece.numel)
                assert value.dtype == torch.float32, f"{kind} of {piece.name} is {value.dtype}"
                room = row.narrow(0, piece.share_start, piece.numel)
                if value.is_cuda:
                    room.copy_(value, non_blocking=True)
                    is_on_gpu = True
                else:  # by one thread: several wait for each other at each of many small pieces
                    np.copyto(room.numpy(), value.numpy())
        if is_on_gpu:
            copied = torch.cuda.Event()
            copied.record()
            copied.synchronize()
