"""Memory for the rows of one batch, made once: fresh memory for each would cost as much as reading."""

import torch
from numpy.typing import NDArray
from torch import Tensor

from ifvit.data.shard_set import ShardSet


class BatchBuffers:
    """`moments` (R, 2C, H, W) float16; `text` (R, T, X) float16 where embeddings are stored, else (R, T) uint16.

    Pinned memory is copied to a GPU without waiting; it is free again once those copies are done.
    """

    def __init__(self, shard_set: ShardSet, num_rows: int, pin_memory: bool = False) -> None:
        shapes = shard_set.shapes
        text_shape = shapes.prompt_embeds if shard_set.has_embeddings else (shapes.num_text_tokens,)
        text_type = torch.float16 if shard_set.has_embeddings else torch.uint16
        self.pins = pin_memory
        self.moments_tensor = torch.zeros((num_rows, *shapes.moments), dtype=torch.float16, pin_memory=pin_memory)
        self.text_tensor = torch.zeros((num_rows, *text_shape), dtype=text_type, pin_memory=pin_memory)
        self.moments, self.text = self.moments_tensor.numpy(), self.text_tensor.numpy()
        self.copied = torch.cuda.Event() if pin_memory else None

    def tensor(self, values: NDArray) -> Tensor:
        """`values` as a tensor of its own, in memory of the same kind."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if self.pins else tensor

    def give_back(self) -> None:
        """To be called by the thread that started copies to a GPU, after the last one."""
        if self.copied is not None:
            self.copied.record()

    def wait_until_free(self) -> None:
        """Until the copies that were started before `give_back` are done."""
        if self.copied is not None:
            self.copied.synchronize()
