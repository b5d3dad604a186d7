"""Training without DeepSpeed: the reference that tests and benchmarks compare the engine with. One process, float32."""

import torch
from torch import Tensor, nn

from ifvit.config.schema import OptimizerConfig
from ifvit.training.fragments import Fragment
from ifvit.training.optimizer import make_optimizer
from ifvit.training.state import StepOutcome


class PlainEngine:
    """The same shape as `training.engine.DeepSpeedEngine`, in plain PyTorch."""

    def __init__(self, model: nn.Module, optimizer: OptimizerConfig, num_micro_batches: int = 1) -> None:
        self.model = model
        self.num_micro_batches = num_micro_batches
        self.optimizer = make_optimizer(model, optimizer)
        self.fragments = [Fragment(name, 0, p.data.view(-1), p, 0) for name, p in model.named_parameters()]

    def backward(self, micro_loss: Tensor) -> None:
        micro_loss.backward()

    def step(self, learning_rate: float, must_skip: Tensor | None = None) -> StepOutcome:
        assert must_skip is None, "the plain loop makes every update"
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        grad_norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepOutcome(grad_norm, torch.zeros_like(grad_norm, dtype=torch.bool))
