"""How many bytes of tensors are alive in a step, and what its operations compute and move.

Every operation within the block is seen, and every storage that one makes is followed until it is freed. On the meta
device, where tensors have shapes alone, this holds for any model that runs: each fusion schedule, conditioning method
and rate of activation checkpointing. What a kernel takes for itself while it works is not in it.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Operation:
    """One kernel's work: FLOPs of matrix products and convolutions, bytes read and written."""

    flops: int
    num_bytes: int


class LiveBytes(TorchDispatchMode):
    """Counts within the block.

    Attributes:
        now: bytes of the tensors made within the block that are still alive.
        peak: the most of them at any time.
        operations: all that made a tensor or changed one, in their order.

    Only storages on `device` are counted: DeepSpeed makes tensors on the meta device beside those that take memory.
    Storages of `known` tensors are not counted, so neither are views of them.
    """

    def __init__(self, device: torch.device, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.device_type = device.type
        self.now = self.peak = 0
        self.operations: list[Operation] = []
        self.followed = WeakIdKeyDictionary({tensor.untyped_storage(): None for tensor in known})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        makes = [self.follow(output.untyped_storage()) for output in outputs]
        if any(makes) or func._schema.is_mutable:
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            count = flop_registry.get(func._overloadpacket)
            flops = count(*args, **kwargs, out_val=result) if count is not None else 0
            self.operations.append(Operation(flops, sum(tensor.nbytes for tensor in [*inputs, *outputs])))
        return result

    def follow(self, storage: torch.UntypedStorage) -> bool:
        """Whether `storage` is new."""
        if storage in self.followed:
            return False
        self.followed[storage] = None
        if storage.device.type != self.device_type:
            return True
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.forget, storage.nbytes())
        return True

    def forget(self, num_bytes: int) -> None:
        self.now -= num_bytes
