"""DeepSpeed's own configuration, from the recipe."""

from typing import Any

from ifvit.config.schema import RuntimeConfig, TrainConfig

MAX_BUCKET_NUMEL = 50_000_000  # values that are reduced in one operation: 200 MB
GATHERED_BLOCKS = 3  # at stage 3: the one in use, and those ahead of it


def deepspeed_config(
    train: TrainConfig, runtime: RuntimeConfig, num_parameters: int, largest_block: int
) -> dict[str, Any]:
    """`num_parameters` values in all weights, `largest_block` in those of one block.

    Accumulation is the loop's: each `step` is a boundary. Clipping and what is not finite are the engine's.
    """
    zero: dict[str, Any] = {
        "stage": runtime.zero_stage,
        "overlap_comm": False,
        "reduce_bucket_size": min(num_parameters, MAX_BUCKET_NUMEL),
        "sub_group_size": num_parameters + 1,  # one update for all of a rank's weights
        "stage3_param_persistence_threshold": 0,
        "stage3_max_reuse_distance": 0,  # a block's weights are given back after forward and gathered for backward
        # At each block so much is gathered ahead of those that already are; by default, in the end, 10^9 values.
        "stage3_prefetch_bucket_size": largest_block,
        "stage3_max_live_parameters": GATHERED_BLOCKS * largest_block,
        "memory_efficient_linear": False,  # replaces torch's in all of the process; saved_weights.py is enough
    }
    if runtime.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": train.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "bf16": {"enabled": train.precision == "bf16", "check_grad_overflow": False},
        "data_types": {"grad_accum_dtype": "fp32"},  # micro-batches in bf16 add up in float32
        "gradient_clipping": 0.0,  # its default is 1.0
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # its own CPU optimiser is compiled at the first start
        "steps_per_print": None,
    }
