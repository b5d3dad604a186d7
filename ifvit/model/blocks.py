"""Transformer blocks of the U-ViT backbone.

Shape letters, used in every shape comment of ifvit/model:
    B  batch
    I  image tokens: one time token, then (H / P) * (W / P) latent patches
    T  text tokens
    L  tokens this block updates: I, T, or I + T
    M  tokens this block may read: L, plus any context
    G, K, D  heads, width per head, hidden_size = G * K
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifvit.config.schema import ModelConfig
from ifvit.model.attention import attention


class TransformerBlock(nn.Module):
    """Pre-norm attention, then an MLP. A block of the out-path first merges its long skip.

    Queries come from `hidden_states`; keys and values from `hidden_states` followed by `context`, through the same
    weights and the same norm. Without context this is self-attention.
    """

    def __init__(self, config: ModelConfig, *, takes_skip: bool = False) -> None:
        super().__init__()
        hidden_size, mlp_size = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
        self.num_attention_heads = config.num_attention_heads
        self.skip_proj = nn.Linear(2 * hidden_size, hidden_size) if takes_skip else None
        self.norm1 = nn.LayerNorm(hidden_size)
        self.to_qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=config.qkv_bias)  # one packed weight: rows q, k, v
        self.to_out = nn.Linear(hidden_size, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.mlp = nn.Sequential(nn.Linear(hidden_size, mlp_size), nn.GELU(), nn.Linear(mlp_size, hidden_size))

    def forward(self, hidden_states: Tensor, skip: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """hidden_states (B, L, D), skip (B, L, D), context (B, M - L, D) -> (B, L, D)."""
        if self.skip_proj is not None:
            assert skip is not None, "a block of the out-path needs its skip"
            hidden_states = self.skip_proj(torch.cat((hidden_states, skip), dim=-1))  # (B, L, 2D) -> (B, L, D)
        hidden_states = hidden_states + self.attend(hidden_states, context)
        return hidden_states + self.mlp(self.norm2(hidden_states))  # (B, L, D)

    def attend(self, hidden_states: Tensor, context: Tensor | None) -> Tensor:
        query, key, value = self.to_qkv(self.norm1(hidden_states)).chunk(3, dim=-1)  # (B, L, D) each
        if context is not None:  # text answers but does not ask: only its keys and values are computed
            text_key, text_value = self.key_value(self.norm1(context)).chunk(2, dim=-1)  # (B, M - L, D) each
            key, value = torch.cat((key, text_key), dim=1), torch.cat((value, text_value), dim=1)  # (B, M, D)
        query, key, value = (self.split_heads(x) for x in (query, key, value))  # (B, G, L or M, K)
        return self.to_out(attention(query, key, value).transpose(1, 2).flatten(2))  # (B, L, D)

    def key_value(self, hidden_states: Tensor) -> Tensor:
        """The key and value rows of `to_qkv` alone: (B, M, D) -> (B, M, 2D)."""
        hidden_size = hidden_states.shape[-1]
        bias = None if self.to_qkv.bias is None else self.to_qkv.bias[hidden_size:]
        return F.linear(hidden_states, self.to_qkv.weight[hidden_size:], bias)

    def split_heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
