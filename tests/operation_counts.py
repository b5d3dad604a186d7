"""Which operations torch is asked for, and how often."""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OperationCounts(TorchDispatchMode):
    """Counts inside its `with` block, by name in `calls`; collective operations of different sizes are told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if func.namespace == "c10d":
            num_bytes = sum(leaf.nbytes for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor))
            name = f"{name} of {num_bytes} bytes"
        self.calls[name] += 1
        return func(*args, **(kwargs or {}))
