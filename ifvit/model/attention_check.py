"""Is an attention backend right at the shapes a model uses? Output and gradients against attention in float32."""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from ifvit.config.schema import ModelConfig
from ifvit.model import attention
from ifvit.model.attention import AttentionFunction, math_attention
from ifvit.model.uvit import UViT

# The largest error of a row, relative to the rows' mean norm; of a wrong row it is about 1. Right ones on a CPU, at the
# paper's lengths: 2e-6 in float32, 0.02 by torch's kernel in bf16, 0.05 by math.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.2}
REFERENCE_ROWS = 8  # of the batch at once: float32 math keeps all scores
TENSORS = ("output", "gradient of the query", "gradient of the key", "gradient of the value")


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class AttentionCall:
    """What attention is called with: query (B, G, L, K), key and value (B, G, M, K)."""

    query: Layout
    key: Layout
    value: Layout

    @property
    def text(self) -> str:
        """Such as "256 x 8 heads, 257 queries, 334 keys of 64"."""
        batch, heads, queries, width = self.query.shape
        return f"{batch} x {heads} heads, {queries} queries, {self.key.shape[2]} keys of {width}"


def attention_calls(config: ModelConfig, batch_size: int) -> Counter[AttentionCall]:
    """The calls of one forward pass, and how often each is made: seen on the meta device, in the model's own layout."""
    calls: Counter[AttentionCall] = Counter()

    def watch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        calls[AttentionCall(*(Layout(tuple(x.shape), x.stride()) for x in (query, key, value)))] += 1
        return math_attention(query, key, value)

    with torch.device("meta"), torch.no_grad(), attention.backend(watch):
        latents = torch.empty(batch_size, config.in_channels, config.sample_size, config.sample_size)
        text = torch.empty(batch_size, config.num_text_tokens, config.text_hidden_size)
        UViT(config)(latents, torch.ones(batch_size), text)
    return calls


def backend_failure(name: str, calls: Iterable[AttentionCall], dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the backend `name` cannot be used for `calls` in `dtype` on `device`, in one line, or None."""
    if name == "xformers":
        if device.type != "cuda":
            return "xformers needs a CUDA GPU"
        if find_spec("xformers") is None:
            return "xformers is not installed (pip install 'ifvit[gpu]')"
    failures = (call_failure(attention.BACKENDS[name], call, dtype, device) for call in calls)
    return next((failure for failure in failures if failure is not None), None)


def call_failure(
    function: AttentionFunction, call: AttentionCall, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Why `function` cannot be used for `call`, or None."""
    probes, cotangent = make_probes(call, dtype, device)
    try:
        measured = output_and_gradients(function, probes, cotangent)
    except (RuntimeError, ImportError, ValueError, OSError, AttributeError) as error:  # by the kernel or its package
        line = str(error).splitlines()[0] if str(error) else "no message"
        return f"{type(error).__name__} at {call.text}: {line}"
    for what, largest in zip(TENSORS, largest_errors(measured, probes, cotangent), strict=True):
        if not largest <= TOLERANCES[dtype]:
            how = "has NaN" if math.isnan(largest) else f"is off by {largest:.2g}"
            return f"its {what} {how} at {call.text}"
    return None


def make_probes(call: AttentionCall, dtype: torch.dtype, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Query, key and value of normal numbers in the layout of `call`, and a gradient of the output, as shaped."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(layout: Layout) -> Tensor:
        tensor = torch.empty_strided(layout.shape, layout.stride, dtype=dtype, device=device)
        return tensor.normal_(generator=generator)

    return [normal(layout) for layout in (call.query, call.key, call.value)], normal(call.query)


def output_and_gradients(function: AttentionFunction, probes: Sequence[Tensor], cotangent: Tensor) -> list[Tensor]:
    """The output and the gradients of query, key and value, where the output's is `cotangent`."""
    inputs = [x.detach().requires_grad_() for x in probes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # why torch's kernels do not take the tensors, a line for each
        output = function(*inputs)
        return [output.detach(), *torch.autograd.grad(output, inputs, cotangent)]


def largest_errors(measured: Sequence[Tensor], probes: Sequence[Tensor], cotangent: Tensor) -> list[float]:
    """Of the output and each gradient: the largest error of a row (K,), relative to the mean norm of float32's rows."""
    errors: list[list[Tensor]] = [[] for _ in measured]
    norms: list[list[Tensor]] = [[] for _ in measured]
    for first in range(0, len(cotangent), REFERENCE_ROWS):
        rows = slice(first, first + REFERENCE_ROWS)
        exact = output_and_gradients(math_attention, [x[rows].float() for x in probes], cotangent[rows].float())
        for index, (ours, reference) in enumerate(zip(measured, exact, strict=True)):
            errors[index].append((ours[rows].float() - reference).norm(dim=-1).amax())
            norms[index].append(reference.norm(dim=-1).mean())
    return [
        (torch.stack(error).amax() / torch.stack(norm).mean()).item() for error, norm in zip(errors, norms, strict=True)
    ]
