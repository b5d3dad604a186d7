"""Scaled dot-product attention through one function, with interchangeable backends.

All backends take query (B, G, L, K), key and value (B, G, M, K) and give (B, G, L, K). The backend is a process-wide
choice, so that an analysis can switch it from outside without touching the model.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from ifvit.config.errors import UserError

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def math_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V, written out: the reference the others are compared with."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, G, L, M)
    return scores.softmax(dim=-1) @ value


def sdpa_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """torch's own choice among its flash, memory-efficient and cuDNN kernels."""
    return F.scaled_dot_product_attention(query, key, value)


def xformers_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """xformers' memory-efficient attention, which orders its axes (B, L, G, K)."""
    from xformers.ops import memory_efficient_attention

    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return memory_efficient_attention(query, key, value).transpose(1, 2)


BACKENDS: dict[str, AttentionFunction] = {
    "xformers": xformers_attention,
    "sdpa": sdpa_attention,
    "math": math_attention,
}  # best first: the order in which `auto` tries them

_active: AttentionFunction = sdpa_attention


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by the active backend: query (B, G, L, K), key and value (B, G, M, K) -> (B, G, L, K)."""
    return _active(query, key, value)


@contextmanager
def backend(function: AttentionFunction) -> Iterator[None]:
    """Within the block, `attention` is `function`: a backend, or an analysis that looks at what passes."""
    global _active
    previous, _active = _active, function
    try:
        yield
    finally:
        _active = previous


def set_attention_backend(
    name: str, device: torch.device, dtypes: Collection[torch.dtype] = (torch.float32,), head_dim: int = 64
) -> str:
    """Make `name` (a key of BACKENDS, or "auto") the active backend on `device` and return the name in use.

    Raises UserError when a backend asked for by name does not work here in all `dtypes`; `auto` passes over those that
    do not.
    """
    global _active

    def failure_of(candidate: str) -> str | None:
        failures = (backend_failure(candidate, device, dtype, head_dim) for dtype in dtypes)
        return next((failure for failure in failures if failure is not None), None)

    if name == "auto":
        name = next(candidate for candidate in BACKENDS if failure_of(candidate) is None)
    elif (failure := failure_of(name)) is not None:
        raise UserError(f"runtime.attention_backend: {name} does not work here: {failure}; use auto, sdpa or math")
    _active = BACKENDS[name]
    return name


def backend_failure(name: str, device: torch.device, dtype: torch.dtype, head_dim: int = 64) -> str | None:
    """Why `name` cannot be used on `device`, or None: a small forward and backward pass, compared with float32 math."""
    if name == "xformers":
        if device.type != "cuda":
            return "xformers needs a CUDA GPU"
        if find_spec("xformers") is None:
            return "xformers is not installed (pip install 'ifvit[gpu]')"
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    generator = torch.Generator(device).manual_seed(0)
    probes = [torch.randn(2, 2, length, head_dim, generator=generator, device=device) for length in (33, 45, 45)]
    try:
        measured = output_and_gradients(BACKENDS[name], [x.to(dtype) for x in probes])
    except (RuntimeError, ImportError, NotImplementedError, ValueError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    exact = output_and_gradients(math_attention, probes)
    for ours, reference in zip(measured, exact, strict=True):
        if not torch.allclose(ours.float(), reference, atol=tolerance, rtol=tolerance):
            return "its output or gradient differs from float32 attention"
    return None


def output_and_gradients(function: AttentionFunction, probes: list[Tensor]) -> list[Tensor]:
    inputs = [x.detach().requires_grad_() for x in probes]
    output = function(*inputs)
    return [output.detach(), *torch.autograd.grad(output.float().square().mean() * 1e3, inputs)]
