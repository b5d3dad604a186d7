"""Memory of one rank by part, from what DeepSpeed 0.19 keeps at each ZeRO stage."""

from dataclasses import dataclass
from typing import Any

from ifvit.benchmark.frozen_models import frozen_bytes
from ifvit.benchmark.plan_request import PlanRequest
from ifvit.benchmark.planned_model import PlannedModel
from ifvit.training.deepspeed_config import deepspeed_config

FLOAT32 = 4
# DeepSpeed's own, in elements, where the engine's configuration does not set them.
REDUCE_BUCKET, MAX_REUSE_DISTANCE = 500_000_000, 1_000_000_000


@dataclass(frozen=True)
class MemoryPart:
    """Bytes of one kind, and what the number rests on."""

    name: str
    num_bytes: int
    basis: str


def memory_parts(request: PlanRequest, model: PlannedModel) -> list[MemoryPart]:
    """What one GPU holds when a step needs most."""
    recipe = request.recipe
    stage, bf16 = request.zero_stage, recipe.train.precision == "bf16"
    total, spread = model.num_parameters, model.num_parameters // request.num_shards
    weight = request.bytes_per_weight
    num_averages = len(recipe.ema.decays)
    over = f" / {request.num_shards} ranks" if request.num_shards > 1 else ""
    parts = [
        MemoryPart("weights", weight * (spread if stage == 3 else total), f"{weight} P{over if stage == 3 else ''}"),
    ]
    if stage in (1, 2) or (stage == 3 and bf16):
        parts.append(MemoryPart("fp32 master", FLOAT32 * spread, f"4 P{over}"))
    parts += [
        gradients(stage, bf16, total, spread, over),
        MemoryPart("Adam moments", 2 * FLOAT32 * spread, f"8 P{over}"),
        MemoryPart("EMA", num_averages * FLOAT32 * spread, f"4 P{over} for each of {num_averages} decays"),
        MemoryPart(
            "activations",
            model.step.peak,
            f"counted on the meta device at micro-batch {recipe.train.micro_batch_size}",
        ),
    ]
    if stage == 3:
        parts.append(gathered_blocks(request, model))
    parts += [
        communication_buckets(request, total),
        MemoryPart("frozen models", frozen_bytes(recipe, total), "encoders, and the preview's model where prompts are"),
        MemoryPart("batch", batch_bytes(request), "moments and text of the rank's rows, noise of the global batch"),
        MemoryPart("CUDA context", int(request.assumptions.context_gb * 1e9), "assumed"),
    ]
    return [part for part in parts if part.num_bytes > 0]


def gradients(stage: int, bf16: bool, total: int, spread: int, over: str) -> MemoryPart:
    """Micro-batches add up in float32; at stages 0 and 1 on every rank whole."""
    if stage == 1 and bf16:
        return MemoryPart("gradients", (FLOAT32 + 2) * total, "4 P to add up, 2 P of a micro-batch, whole at stage 1")
    if stage == 1:
        return MemoryPart("gradients", FLOAT32 * (total + spread), f"4 P, whole at stage 1, and 4 P{over}")
    if stage == 0:
        return MemoryPart("gradients", FLOAT32 * total, "4 P")
    return MemoryPart("gradients", FLOAT32 * spread, f"4 P{over}")


def gathered_blocks(request: PlanRequest, model: PlannedModel) -> MemoryPart:
    """Whole parameters at stage 3: DeepSpeed keeps those that it needs again within its reuse distance."""
    distance = zero_config(request, model.num_parameters).get("stage3_max_reuse_distance", MAX_REUSE_DISTANCE)
    held = min(model.num_parameters, max(2 * model.largest_block, distance))
    return MemoryPart("gathered blocks", request.bytes_per_weight * held, "two blocks, or what is soon needed again")


def communication_buckets(request: PlanRequest, num_parameters: int) -> MemoryPart:
    """Flat copies of the gradients that are being reduced."""
    stage = request.zero_stage
    bucket = zero_config(request, num_parameters).get("reduce_bucket_size", REDUCE_BUCKET)
    filled = min(bucket, num_parameters)
    copy = FLOAT32 * filled if request.world_size > 1 else 0
    if stage < 2:
        return MemoryPart("communication", copy, "a flat float32 copy of a bucket of gradients")
    return MemoryPart("communication", request.bytes_per_weight * bucket + copy, "a bucket, and its float32 copy")


def zero_config(request: PlanRequest, num_parameters: int) -> dict[str, Any]:
    train, runtime = request.recipe.train, request.recipe.runtime
    config: dict[str, Any] = deepspeed_config(train, runtime, num_parameters)["zero_optimization"]
    return config


def batch_bytes(request: PlanRequest) -> int:
    shape = request.recipe.model
    latents = shape.in_channels * shape.sample_size**2
    row = 2 * latents + shape.num_text_tokens * shape.text_hidden_size
    return FLOAT32 * (request.rows_per_rank * row + 2 * request.recipe.train.global_batch_size * latents)
