"""AdamW on all parameters, and its learning rate as a function of the step."""

import torch
from torch import nn

from ifvit.config.schema import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """One parameter group: the paper decays every parameter alike."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=config.adam_betas,
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate_at(step: int, config: OptimizerConfig) -> float:
    """Linear warm-up from 0, then constant: the step counts from 0, so the first one has learning rate 0."""
    if step >= config.warmup_steps:
        return config.learning_rate
    return config.learning_rate * step / config.warmup_steps
