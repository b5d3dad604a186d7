"""DeepSpeed around a plain model: precision, sharding, reduction, optimiser step.

Only this file, deepspeed_inside.py and communication.py, which times its collectives, import it.
"""

import contextlib
import io
import logging
import os
from typing import Any

import torch
from torch import Tensor, nn

from ifvit.config.errors import UserError
from ifvit.config.schema import OptimizerConfig, RuntimeConfig, TrainConfig
from ifvit.model.uvit import UViT
from ifvit.runtime.distributed import is_cuda_used
from ifvit.training.blocks import blocks_of, largest_block, prepare_blocks
from ifvit.training.deepspeed_config import deepspeed_config
from ifvit.training.deepspeed_inside import check_inside, replace_functions
from ifvit.training.fragments import Fragment, create_moments, local_fragments, moment, optimizer_step, refresh_weights
from ifvit.training.guarded_update import GuardedUpdate, carry_into_gradients
from ifvit.training.optimizer import make_optimizer
from ifvit.training.saved_weights import without_saved_weights
from ifvit.training.state import StepOutcome


class DeepSpeedEngine:
    """Trains `model` under DeepSpeed ZeRO. The process group must exist.

    Every rank gives the whole model; at stage 3 its parameters are empty from then on, outside of their blocks.

    Attributes:
        model: the wrapped model; calling it is a forward pass in the recipe's precision.
        module: `model` as given.
        num_micro_batches: how often `backward` is called for one `step`.
        fragments: this rank's part of the float32 weights.
        is_sharded: whether the fragments of other ranks hold other parts.
    """

    def __init__(
        self, model: UViT, train: TrainConfig, optimizer: OptimizerConfig, runtime: RuntimeConfig, world_size: int
    ) -> None:
        self.num_micro_batches = num_micro_batches(train, world_size)
        device = next(model.parameters()).device
        initial_weights = {}
        if train.precision == "bf16":
            initial_weights = {name: p.detach().flatten().clone() for name, p in model.named_parameters()}
        prepare_blocks(model, recomputed_share=train.activation_checkpointing, is_compiled=runtime.compile)
        if runtime.zero_stage == 3:
            model.forward = without_saved_weights(model.forward)  # type: ignore[method-assign]
        self.optimizer = make_optimizer(model, optimizer)
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        config = deepspeed_config(train, runtime, num_parameters, largest_block(model))
        self.engine = initialize_deepspeed(model, self.optimizer, config)
        self.model: nn.Module = self.engine
        self.module = model
        self.fragments: list[Fragment] = local_fragments(model, self.engine)
        self.is_sharded = runtime.zero_stage > 0
        # DeepSpeed rounds the weights to bf16 before it copies them to float32.
        for fragment in self.fragments if initial_weights else ():
            initial = initial_weights[fragment.name]
            fragment.weight.copy_(initial.narrow(0, fragment.start, fragment.weight.numel()))
        self.update = GuardedUpdate(self.optimizer, self.grad_norm, train.max_grad_norm, device)
        if not self.is_sharded:
            # At one rank the reduction would only flatten and unflatten all gradients.
            self.engine.enable_backward_allreduce = world_size > 1

    def backward(self, micro_loss: Tensor) -> None:
        """Add the gradients of `micro_loss`, one micro-batch's share of the mean over this rank's rows.

        They are NaN where it is not finite itself.
        """
        carry_into_gradients(micro_loss)
        self.engine.backward(micro_loss)

    def step(self, learning_rate: float, must_skip: Tensor | None = None) -> StepOutcome:
        """Reduce the gradients over the ranks and update the weights.

        The update is left out, on all ranks alike and without the host waiting, where a loss or a gradient is not
        finite on any rank, or `must_skip` is true: a scalar bool, the same on all ranks.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.update.must_skip = must_skip
        self.engine.step()
        assert self.update.outcome is not None, "DeepSpeed made no update"
        return self.update.outcome

    def refresh_weights(self) -> None:
        """Let the model compute with the fragments' weights, after they were changed from outside. Collective."""
        refresh_weights(self.engine)

    def moment(self, fragment: Fragment, key: str) -> Tensor:
        """The Adam moment `key` ("exp_avg", "exp_avg_sq") of `fragment`: a view (numel,) float32."""
        return moment(fragment, key, self.optimizer)

    def create_moments(self, step: int) -> None:
        """Zero moments, as a resumed run fills them, with the optimiser's own count at `step`."""
        create_moments(self.fragments, self.optimizer, step)

    def optimizer_step(self) -> int:
        """The optimiser's own count: updates made, without the skipped ones. Waits for the device."""
        return optimizer_step(self.optimizer)

    def grad_norm(self) -> Tensor:
        """Of all ranks, of gradients reduced and not yet applied; negative, NaN or infinite where one is not finite."""
        # ZeRO has it when the update begins, its engine's get_global_grad_norm only after it; stage 0 computes none.
        if self.is_sharded:
            return torch.as_tensor(self.engine.optimizer._global_grad_norm)
        return torch.nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])


def num_micro_batches(train: TrainConfig, world_size: int) -> int:
    """Micro-batches of one rank in one step. Raises UserError when the global batch cannot be split evenly."""
    if train.global_batch_size % world_size:
        raise UserError(
            f"train.global_batch_size: {train.global_batch_size} cannot be split evenly over {world_size} ranks; take "
            "a number of ranks that divides it, or another batch"
        )
    per_pass = train.micro_batch_size * world_size
    if train.global_batch_size % per_pass:
        raise UserError(
            f"train.micro_batch_size: {train.micro_batch_size} x {world_size} ranks = {per_pass} does not divide "
            f"train.global_batch_size = {train.global_batch_size}; on {world_size} ranks it must divide "
            f"{train.global_batch_size // world_size}"
        )
    return train.global_batch_size // per_pass


def initialize_deepspeed(model: UViT, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    if not is_cuda_used():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise it warns at every start that it found no GPU
    import deepspeed
    from deepspeed.utils import logger, set_z3_leaf_module

    logger.setLevel(logging.WARNING)
    replace_functions()
    for block in blocks_of(model):
        set_z3_leaf_module(block, True)  # stage 3 gathers and reduces a block as one piece
    deepspeed.init_distributed(verbose=False)
    with contextlib.redirect_stdout(io.StringIO()):  # its bf16 optimiser prints tables of memory use
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    check_inside(engine, model)
    return engine
