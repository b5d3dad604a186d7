"""Scaled dot-product attention through one function, with interchangeable backends.

All backends take query (B, G, L, K), key and value (B, G, M, K) and give (B, G, L, K). The backend is a process-wide
choice for each dtype, so that an analysis can switch it from outside without touching the model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def math_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V, written out: the reference the others are compared with."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, G, L, M)
    return scores.softmax(dim=-1) @ value


def sdpa_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """torch's own choice among its kernels."""
    return F.scaled_dot_product_attention(query, key, value)


def one_sdpa_kernel(kernel: SDPBackend) -> AttentionFunction:
    """torch's attention by `kernel` alone; it raises RuntimeError where that kernel does not take the tensors."""

    def kernel_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(kernel):
            return F.scaled_dot_product_attention(query, key, value)

    return kernel_attention


def xformers_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """xformers' memory-efficient attention, which orders its axes (B, L, G, K)."""
    from xformers.ops import memory_efficient_attention

    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return memory_efficient_attention(query, key, value).transpose(1, 2)


BACKENDS: dict[str, AttentionFunction] = {
    "xformers": xformers_attention,
    "flash": one_sdpa_kernel(SDPBackend.FLASH_ATTENTION),
    "cudnn": one_sdpa_kernel(SDPBackend.CUDNN_ATTENTION),
    "efficient": one_sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),
    "sdpa": sdpa_attention,
    "math": math_attention,
}

_active: dict[torch.dtype, AttentionFunction] = {}  # by dtype; sdpa where nothing was chosen
_watcher: AttentionFunction | None = None  # in place of all of them, for a while


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by the active backend: query (B, G, L, K), key and value (B, G, M, K) -> (B, G, L, K)."""
    function = _watcher or _active.get(query.dtype, sdpa_attention)
    return function(query, key, value)


def activate(name: str, dtype: torch.dtype) -> None:
    """Make `name`, a key of BACKENDS, the backend of all tensors of `dtype` in this process."""
    _active[dtype] = BACKENDS[name]


@contextmanager
def backend(function: AttentionFunction) -> Iterator[None]:
    """Within the block, `attention` is `function`: a backend, or an analysis that looks at what passes."""
    global _watcher
    previous, _watcher = _watcher, function
    try:
        yield
    finally:
        _watcher = previous
