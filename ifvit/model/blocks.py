"""Transformer blocks of the U-ViT backbone.

Shape letters, used in every shape comment of ifvit/model:
    B  batch
    I  image tokens: one time token, then (H / P) * (W / P) latent patches
    T  text tokens
    L  tokens this block updates: I, T, or I + T
    M  tokens this block may read: L, plus any context
    G, K, D  heads, width per head, hidden_size = G * K
"""

from torch import Tensor, nn

from ifvit.config.schema import ModelConfig
from ifvit.model.attention import attention
from ifvit.model.projections import QueryKeyValue, SkipMerge


class TransformerBlock(nn.Module):
    """Pre-norm attention, then an MLP. A block of the out-path first merges its long skip.

    Queries come from `hidden_states`; keys and values from `hidden_states` followed by `context`, through the same
    weights and the same norm. Without context this is self-attention.
    """

    def __init__(self, config: ModelConfig, *, takes_skip: bool = False) -> None:
        super().__init__()
        hidden_size, mlp_size = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
        self.num_attention_heads = config.num_attention_heads
        self.skip_proj = SkipMerge(hidden_size) if takes_skip else None
        self.norm1 = nn.LayerNorm(hidden_size)
        self.to_qkv = QueryKeyValue(hidden_size, bias=config.qkv_bias)
        self.to_out = nn.Linear(hidden_size, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.mlp = nn.Sequential(nn.Linear(hidden_size, mlp_size), nn.GELU(), nn.Linear(mlp_size, hidden_size))

    def forward(self, hidden_states: Tensor, skip: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """hidden_states (B, L, D), skip (B, L, D), context (B, M - L, D) -> (B, L, D)."""
        if self.skip_proj is not None:
            assert skip is not None, "a block of the out-path needs its skip"
            hidden_states = self.skip_proj(hidden_states, skip)  # (B, L, D)
        hidden_states = hidden_states + self.attend(hidden_states, context)
        return hidden_states + self.mlp(self.norm2(hidden_states))  # (B, L, D)

    def attend(self, hidden_states: Tensor, context: Tensor | None) -> Tensor:
        context = None if context is None else self.norm1(context)
        query, key, value = self.to_qkv(self.norm1(hidden_states), context)  # (B, L, D), then (B, M, D) twice
        query, key, value = (self.split_heads(x) for x in (query, key, value))  # (B, G, L or M, K)
        return self.to_out(attention(query, key, value).transpose(1, 2).flatten(2))  # (B, L, D)

    def split_heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
