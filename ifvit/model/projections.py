"""Linear layers of a block that use parts of one stored weight.

Each is a module of its own: at ZeRO stage 3 a weight is whole only while the forward of its module runs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SkipMerge(nn.Linear):
    """The linear map of [hidden_states, skip] to the width of one of them, as a sum of two products: no concatenation.

    Weight (D, 2D) and bias (D,), as of `nn.Linear(2 * D, D)`.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(2 * hidden_size, hidden_size)

    def forward(self, hidden_states: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """hidden_states (B, L, D), skip (B, L, D) -> (B, L, D)."""
        of_hidden_states, of_skip = self.weight.chunk(2, dim=1)  # views (D, D)
        return F.linear(hidden_states, of_hidden_states, self.bias) + F.linear(skip, of_skip)


class QueryKeyValue(nn.Linear):
    """Queries, keys and values by one product: weight (3D, D), rows q, k, v."""

    def __init__(self, hidden_size: int, *, bias: bool) -> None:
        super().__init__(hidden_size, 3 * hidden_size, bias=bias)

    def forward(self, hidden_states: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """hidden_states (B, L, D), context (B, M - L, D) -> query (B, L, D), key and value (B, M, D).

        Context answers but does not ask: only its keys and values are computed, by one product, too.
        """
        width = hidden_states.shape[-1]
        query, key_value = F.linear(hidden_states, self.weight, self.bias).split((width, 2 * width), dim=-1)
        if context is not None:
            bias = None if self.bias is None else self.bias[width:]
            context_key_value = F.linear(context, self.weight[width:], bias)  # (B, M - L, 2D)
            key_value = torch.cat((key_value, context_key_value), dim=1)  # (B, M, 2D)
        key, value = key_value.chunk(2, dim=-1)
        return query, key, value
