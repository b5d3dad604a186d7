"""The recipe's model on the meta device: its parameters, FLOPs and activations, without memory or a GPU."""

from dataclasses import dataclass
from typing import Any

import torch

from ifvit.benchmark.step_work import StepWork, step_work
from ifvit.config.schema import Recipe
from ifvit.model.flops import count_flops
from ifvit.model.uvit import UViT
from ifvit.training.blocks import largest_block, prepare_blocks
from ifvit.training.deepspeed_config import deepspeed_config


@dataclass(frozen=True)
class PlannedModel:
    """What a plan needs to know of a model.

    Attributes:
        num_parameters: of the whole model.
        largest_block: parameters of its largest transformer block.
        forward_gflops: of one image, attention products included.
        zero_config: DeepSpeed's "zero_optimization".
        step: one micro-batch, forward and backward.
    """

    num_parameters: int
    largest_block: int
    forward_gflops: float
    zero_config: dict[str, Any]
    step: StepWork


def planned_model(recipe: Recipe) -> PlannedModel:
    """Of the recipe's model, micro-batch size, precision and attention backend."""
    with torch.device("meta"):
        model = UViT(recipe.model)
    prepare_blocks(model, recomputed_share=recipe.train.activation_checkpointing, is_compiled=False)
    if recipe.train.precision == "bf16":
        model = model.to(torch.bfloat16)
    step = step_work(
        model,
        recipe.model,
        recipe.train.micro_batch_size,
        is_attention_fused=recipe.runtime.attention_backend != "math",
    )
    block = largest_block(model)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return PlannedModel(
        num_parameters=num_parameters,
        largest_block=block,
        forward_gflops=count_flops(recipe.model)["gflops_with_attention"],
        zero_config=deepspeed_config(recipe.train, recipe.runtime, num_parameters, block)["zero_optimization"],
        step=step,
    )
