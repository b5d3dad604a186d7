"""DeepSpeed around a plain model: precision, sharding, reduction, optimiser step. Only this file imports it."""

import contextlib
import io
import logging
import os
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ifvit.config.errors import UserError
from ifvit.config.schema import OptimizerConfig, RuntimeConfig, TrainConfig
from ifvit.training.fragments import Fragment, base_optimizer, create_moments, local_fragments, moment
from ifvit.training.optimizer import make_optimizer
from ifvit.training.state import NonFiniteError


class DeepSpeedEngine:
    """Trains `model` under DeepSpeed ZeRO. The process group must exist.

    Attributes:
        model: the wrapped model; calling it is a forward pass in the recipe's precision.
        num_micro_batches: how often `backward` is called for one `step`.
        fragments: this rank's part of the float32 weights.
    """

    def __init__(
        self, model: nn.Module, train: TrainConfig, optimizer: OptimizerConfig, runtime: RuntimeConfig, world_size: int
    ) -> None:
        self.num_micro_batches = num_micro_batches(train, world_size)
        initial_weights = {name: p.detach().flatten().float().clone() for name, p in model.named_parameters()}
        torch_optimizer = make_optimizer(model, optimizer)
        self.engine = initialize_deepspeed(model, torch_optimizer, train, runtime)
        self.model: nn.Module = self.engine
        self.module = model
        self.fragments: list[Fragment] = local_fragments(model, self.engine)
        self.is_sharded = runtime.zero_stage > 0
        # DeepSpeed rounds the weights to the training precision before it copies them to float32.
        with torch.no_grad():
            for fragment in self.fragments:
                initial = initial_weights[fragment.name]
                fragment.weight.copy_(initial.narrow(0, fragment.start, fragment.weight.numel()))
        self.grad_norm: Tensor | None = None
        if not self.is_sharded:
            torch_optimizer.register_step_pre_hook(self.keep_grad_norm)
            # At one rank the reduction would only flatten and unflatten all gradients.
            self.engine.enable_backward_allreduce = world_size > 1

    def backward(self, micro_loss: Tensor) -> None:
        """Add the gradients of `micro_loss`, one micro-batch's share of the mean over this rank's rows."""
        self.engine.backward(micro_loss)

    def step(self, learning_rate: float) -> Tensor:
        """Reduce the gradients over the ranks, update the weights; the gradient norm over all ranks, a scalar.

        Raises NonFiniteError, with the weights unchanged, where ZeRO finds gradients that are not finite.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.step()
        # ZeRO leaves out an update with non-finite gradients, on all ranks alike; its own count would fall behind ours.
        if getattr(self.engine.optimizer, "overflow", False):
            raise NonFiniteError("the gradients are not finite")
        grad_norm = self.grad_norm if self.grad_norm is not None else self.engine.get_global_grad_norm()
        assert grad_norm is not None, "DeepSpeed gave no gradient norm"
        return torch.as_tensor(grad_norm)

    def moment(self, fragment: Fragment, key: str) -> Tensor:
        """The Adam moment `key` ("exp_avg", "exp_avg_sq") of `fragment`: a view (numel,) float32."""
        return moment(fragment, key, base_optimizer(self.engine))

    def create_moments(self, step: int) -> None:
        """Zero moments, as a resumed run fills them, with the optimiser's own count at `step`."""
        create_moments(self.fragments, base_optimizer(self.engine), step)

    def keep_grad_norm(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # Stage 0 computes no norm of its own; here the gradients are reduced and not yet applied.
        self.grad_norm = torch.nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])


def num_micro_batches(train: TrainConfig, world_size: int) -> int:
    """Micro-batches of one rank in one step. Raises UserError when the global batch cannot be split evenly."""
    per_pass = train.micro_batch_size * world_size
    if train.global_batch_size % per_pass:
        raise UserError(
            f"train.micro_batch_size: {train.micro_batch_size} x {world_size} ranks = {per_pass} does not divide "
            f"train.global_batch_size = {train.global_batch_size}; on {world_size} ranks it must divide "
            f"{train.global_batch_size / world_size:g}"
        )
    return train.global_batch_size // per_pass


def initialize_deepspeed(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: TrainConfig, runtime: RuntimeConfig
) -> Any:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise it warns at every start that it found no GPU
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    if not torch.cuda.is_available():
        # On a CPU it would compile a shared-memory operation at start, a minute, and die without a compiler. Through
        # import_module, because the attribute deepspeed.comm.torch is the torch package.
        import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
    deepspeed.init_distributed(verbose=False)
    with contextlib.redirect_stdout(io.StringIO()):  # its bf16 optimiser prints tables of memory use
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=deepspeed_config(train, runtime), dist_init_required=False
        )
    return engine


def deepspeed_config(train: TrainConfig, runtime: RuntimeConfig) -> dict[str, Any]:
    """DeepSpeed's own configuration. Accumulation is the loop's: each `step` is a boundary."""
    return {
        "train_micro_batch_size_per_gpu": train.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "bf16": {"enabled": train.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},  # micro-batches in bf16 add up in float32
        "communication_data_type": "fp32",
        "zero_optimization": {"stage": runtime.zero_stage, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
