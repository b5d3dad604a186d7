"""The recipe's model on the meta device: its parameters, FLOPs and activations, without memory or a GPU."""

from dataclasses import dataclass

import torch

from ifvit.benchmark.live_memory import StepMemory, step_memory
from ifvit.config.schema import Recipe
from ifvit.model.flops import count_flops
from ifvit.model.uvit import UViT


@dataclass(frozen=True)
class PlannedModel:
    """What a plan needs to know of a model.

    Attributes:
        num_parameters: of the whole model.
        largest_block: parameters of its largest transformer block.
        forward_gflops: of one image, attention products included.
        step: one micro-batch, forward and backward.
    """

    num_parameters: int
    largest_block: int
    forward_gflops: float
    step: StepMemory


def planned_model(recipe: Recipe) -> PlannedModel:
    """Of the recipe's model, micro-batch size, precision and attention backend."""
    with torch.device("meta"):
        model = UViT(recipe.model)
    if recipe.train.precision == "bf16":
        model = model.to(torch.bfloat16)
    blocks = [*model.text_blocks, *model.in_blocks, model.mid_block, *model.out_blocks]
    step = step_memory(
        model,
        recipe.model,
        recipe.train.micro_batch_size,
        is_attention_fused=recipe.runtime.attention_backend != "math",
    )
    return PlannedModel(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        largest_block=max(sum(parameter.numel() for parameter in block.parameters()) for block in blocks),
        forward_gflops=count_flops(recipe.model)["gflops_with_attention"],
        step=step,
    )
