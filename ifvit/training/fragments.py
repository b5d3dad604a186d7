"""The float32 weights and Adam moments wherever DeepSpeed keeps them. deepspeed_inside.py lists what it uses of it.

Stage 0: each rank holds every parameter whole. Stages 1 and 2: each rank holds one partition of all parameters laid
end to end, and with it a contiguous part of some of them. Stage 3: each rank holds a contiguous part of each parameter,
ceil(numel / ranks) elements long, so that the last ranks' parts may be shorter, or empty, and padded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Fragment:
    """A contiguous part of one flattened parameter, held by this rank."""

    name: str
    start: int  # in the flattened parameter
    weight: Tensor  # (numel,) float32, a view of what the optimiser updates
    flat: Tensor  # the tensor that the optimiser's state is kept for
    flat_start: int  # where `weight` begins in it


def local_fragments(module: nn.Module, engine: Any) -> list[Fragment]:
    """This rank's part of the float32 weights, in the order of the parameters."""
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return [Fragment(name, 0, p.data.view(-1), p, 0) for name, p in module.named_parameters()]
    if stage == 3:
        return list(shards(module, engine.optimizer))
    # In bf16 stage 1 is another class of DeepSpeed's, which names the same thing otherwise.
    is_bf16 = hasattr(engine.optimizer, "fp32_groups_flat_partition")
    partitions = "fp32_groups_flat_partition" if is_bf16 else "single_partition_of_fp32_groups"
    (flat,) = getattr(engine.optimizer, partitions)
    fragments = []
    for name, parameter in module.named_parameters():
        mapping: Any = getattr(parameter, "_hp_mapping")  # noqa: B009 (DeepSpeed's, unknown to the type)
        if mapping is not None:
            start, flat_start = mapping.lp_fragment_address.start, mapping.hp_fragment_address.start
            fragments.append(Fragment(name, start, mapping.hp_fragment.detach(), flat, flat_start))
    return fragments


def shards(module: nn.Module, optimizer: Any) -> Iterator[Fragment]:
    """The fragments of stage 3."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    (flat,), (parameters,) = optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups
    flat_start = 0
    for parameter in parameters:
        padded_numel = parameter.partition_numel()
        start = dist.get_rank() * padded_numel
        numel = min(padded_numel, parameter.ds_numel - start)
        if numel > 0:
            yield Fragment(names[parameter], start, flat.detach().narrow(0, flat_start, numel), flat, flat_start)
        flat_start += padded_numel


@dataclass(frozen=True)
class TrainingWeight:
    """A parameter as forward and backward use it, or at stage 3 this rank's part of it."""

    name: str
    values: Tensor  # (numel,) in the training's precision; at stage 3 it may be padded
    is_whole: bool


def training_weights(module: nn.Module) -> list[TrainingWeight]:
    """What this rank holds between two steps, in the order of the parameters."""
    weights = []
    for name, parameter in module.named_parameters():
        is_whole = not hasattr(parameter, "ds_tensor")
        values: Tensor = parameter if is_whole else getattr(parameter, "ds_tensor")  # noqa: B009 (DeepSpeed's)
        weights.append(TrainingWeight(name, values.detach().view(-1), is_whole))
    return weights


def parameter_shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The whole shape of each parameter by name. At stage 3 the parameter itself is empty outside of its block."""
    return {name: getattr(parameter, "ds_shape", parameter.shape) for name, parameter in module.named_parameters()}


def moment(fragment: Fragment, key: str, optimizer: torch.optim.Optimizer) -> Tensor:
    """The part of the Adam moment `key` that belongs to `fragment`, a view (numel,) float32."""
    flat_moment = optimizer.state[fragment.flat][key].view(-1)
    return flat_moment.narrow(0, fragment.flat_start, fragment.weight.numel())


def create_moments(fragments: Sequence[Fragment], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Zero moments and the step count `step` for every tensor the optimiser updates, as after `step` steps of it.

    Those that are there stay where they are: DeepSpeed's views of them, from its first step, would keep them allocated.
    """
    for flat in {id(fragment.flat): fragment.flat for fragment in fragments}.values():
        state: dict[str, Tensor] = optimizer.state[flat]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
            state |= {key: torch.empty_like(flat, memory_format=torch.preserve_format) for key in MOMENTS}
        state["step"].fill_(step)
        for key in MOMENTS:
            state[key].zero_()


def optimizer_step(optimizer: torch.optim.Optimizer) -> int:
    """How many updates the optimiser has made. Waits for the device."""
    return next((int(state["step"].item()) for state in optimizer.state.values() if "step" in state), 0)


def refresh_weights(engine: Any) -> None:
    """Copy the float32 weights, changed from outside, to those that the model computes with. Collective."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        # As at the end of its own step.
        optimizer._partition_all_parameters()
        for number in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(number)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
