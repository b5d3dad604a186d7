"""What ifvit uses of DeepSpeed beside its public interface: another version may not have it.

It is looked for when an engine starts. A run would otherwise end at its first rollback, or go on with weights taken for
whole that are not.
"""

from importlib import import_module
from typing import Any

from torch import nn

from ifvit.config.errors import UserError
from ifvit.runtime.distributed import is_cuda_used
from ifvit.training.communication import COLLECTIVES

KNOWN_VERSION = "0.19.8"  # has all of it
ENGINE = ("enable_backward_allreduce",)
# By class of the optimiser that DeepSpeed puts around ours, above stage 0: names of its own, and of a parameter.
OPTIMIZERS = {
    "BF16_Optimizer": (("fp32_groups_flat_partition", "update_lp_params"), ("_hp_mapping",)),
    "DeepSpeedZeroOptimizer": (
        ("single_partition_of_fp32_groups", "update_lp_params", "_global_grad_norm"),
        ("_hp_mapping",),
    ),
    "DeepSpeedZeroOptimizer_Stage3": (
        ("fp32_partitioned_groups_flat", "fp16_groups", "persistent_parameters", "_partition_all_parameters",
         "_reassign_or_swap_out_partitioned_parameters", "_global_grad_norm"),
        ("ds_tensor", "ds_shape", "ds_numel", "partition_numel"),
    ),
}  # fmt: skip


def replace_functions() -> None:
    """Before `deepspeed.initialize`. Raises UserError where one is not there: the replacement would do nothing."""
    if not is_cuda_used():
        # On a CPU it would compile a shared-memory operation at start, a minute, and die without a compiler.
        replace("deepspeed.comm.torch", "build_shm_op", lambda: None)
    for name in ("bf16_optimizer", "zero.stage_1_and_2", "zero.stage3"):
        # It would wait for the norm in every step, to leave out the update itself.
        replace(f"deepspeed.runtime.{name}", "is_invalid_grad_norm", lambda norm: False)


def replace(module_name: str, name: str, function: Any) -> None:
    # Through import_module, because the attribute deepspeed.comm.torch is the torch package.
    module = import_module(module_name)
    if not hasattr(module, name):
        raise other_version([f"{module_name}.{name}"])
    setattr(module, name, function)


def check_inside(engine: Any, model: nn.Module) -> None:
    """Raises UserError unless `engine`, just made for `model`, has what later steps use of it."""
    looked_for = [(engine, ENGINE), (import_module("deepspeed.comm.comm").cdb, COLLECTIVES)]
    if engine.zero_optimization_stage() > 0:
        kind = type(engine.optimizer).__name__
        if kind not in OPTIMIZERS:
            raise other_version([" or ".join(OPTIMIZERS)])
        names, parameter_names = OPTIMIZERS[kind]
        looked_for += [(engine.optimizer, names), (next(model.parameters()), parameter_names)]
    missing = [
        f"{type(owner).__name__}.{name}" for owner, names in looked_for for name in names if not hasattr(owner, name)
    ]
    if missing:
        raise other_version(missing)


def other_version(missing: list[str]) -> UserError:
    version = import_module("deepspeed").__version__
    return UserError(
        f"deepspeed {version}: has no {', '.join(missing)}, which ifvit uses; {KNOWN_VERSION} has: "
        f"pip install deepspeed=={KNOWN_VERSION}"
    )
