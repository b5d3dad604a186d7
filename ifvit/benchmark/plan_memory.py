"""Memory of one rank by part, from what DeepSpeed 0.19 keeps at each ZeRO stage."""

from dataclasses import dataclass

from ifvit.benchmark.frozen_models import FLOAT32, frozen_bytes
from ifvit.benchmark.plan_request import PlanRequest
from ifvit.benchmark.planned_model import PlannedModel

WHOLE_BUCKET = 500_000_000  # DeepSpeed's own, in elements: what stage 0 reduces in one operation


@dataclass(frozen=True)
class MemoryPart:
    """Bytes of one kind, and what the number rests on."""

    name: str
    num_bytes: int
    basis: str


def memory_parts(request: PlanRequest, model: PlannedModel) -> list[MemoryPart]:
    """What one GPU holds when a step needs most."""
    recipe = request.recipe
    state = [] if recipe.runtime.offload_optimizer else optimizer_state(request, model.num_parameters)
    total = model.num_parameters
    context = int(request.assumptions.context_gb * 1e9)
    size = recipe.train.micro_batch_size
    parts = [
        weights(request, total),
        *state,
        MemoryPart("activations", model.step.peak, f"counted on the meta device at micro-batch {size}"),
        gradients(request, model),
        reduction(request, model),
        gathered_blocks(request, model),
        MemoryPart("frozen models", frozen_bytes(recipe, total), "encoders, and the preview's model where prompts are"),
        MemoryPart("batch", batch_bytes(request), "moments and text of the rank's rows, noise of the global batch"),
        MemoryPart("CUDA context", context, "assumed"),
    ]
    parts.insert(-3, start_up(request, total, sum(part.num_bytes for part in parts[:-3])))
    return [part for part in parts if part.num_bytes > 0]


def host_bytes(request: PlanRequest, num_parameters: int) -> int:
    """What one rank holds of its host: the buffer that checkpoints are copied to, and an offloaded optimiser."""
    buffer = FLOAT32 * (3 + len(request.recipe.ema.decays)) * num_parameters // request.world_size
    if not request.recipe.runtime.offload_optimizer:
        return buffer
    offloaded = sum(part.num_bytes for part in optimizer_state(request, num_parameters))
    return buffer + offloaded + FLOAT32 * (num_parameters // request.num_shards)


def first_host_bytes(num_parameters: int) -> int:
    """What rank 0 alone holds of its host when a run starts: the weights, and those it reads from a checkpoint."""
    return 2 * FLOAT32 * num_parameters


def weights(request: PlanRequest, total: int) -> MemoryPart:
    weight = request.bytes_per_weight
    if request.zero_stage == 3:
        return MemoryPart("weights", weight * (total // request.num_shards), f"{weight} P{over(request)}")
    return MemoryPart("weights", weight * total, f"{weight} P")


def optimizer_state(request: PlanRequest, total: int) -> list[MemoryPart]:
    """What the update reads and writes; at stage 0 the weights themselves are the float32 copy."""
    spread, spread_text = total // request.num_shards, over(request)
    num_averages = len(request.recipe.ema.decays)
    parts = [
        MemoryPart("Adam moments", 2 * FLOAT32 * spread, f"8 P{spread_text}"),
        MemoryPart("EMA", num_averages * FLOAT32 * spread, f"4 P{spread_text} for each decay"),
    ]
    if request.zero_stage > 0:
        parts.insert(0, MemoryPart("fp32 master", FLOAT32 * spread, f"4 P{spread_text}"))
    return parts


def gradients(request: PlanRequest, model: PlannedModel) -> MemoryPart:
    """Those of weights, and the bucket that they are reduced in, which are there while activations are.

    Those of the only micro-batch come as activations go; those of earlier ones are there before.
    """
    total, weight, bucket = model.num_parameters, request.bytes_per_weight, model.zero_config["reduce_bucket_size"]
    earlier = request.num_micro_batches > 1
    spread = FLOAT32 * (total // request.num_shards)

    def made(share: float) -> int:
        """Of the only micro-batch, where `share` of them stay on this rank."""
        return model.step.peak_with_gradients(share) - model.step.peak

    whole, whole_text = (weight * total, f"{weight} P of earlier micro-batches") if earlier else (made(1), "as made")
    if request.zero_stage == 0:
        return MemoryPart("gradients", whole, whole_text)
    if request.zero_stage == 1 and weight == 2:
        return MemoryPart("gradients", FLOAT32 * total + whole, f"4 P to add up, whole at stage 1, and {whole_text}")
    if request.zero_stage == 1:
        return MemoryPart("gradients", weight * bucket + whole, f"{whole_text}, and a bucket to reduce")
    if request.recipe.runtime.offload_optimizer:
        spread, held = 0, 0
    elif request.zero_stage == 3 or earlier:
        held = spread
    else:  # from the first bucket that is reduced
        held = made(spread / (weight * total)) if bucket < total else 0
    in_bucket = weight if request.zero_stage == 2 else FLOAT32
    text = f"4 P{over(request)}, and a bucket to reduce"
    return MemoryPart("gradients", held + in_bucket * bucket, text)


def reduction(request: PlanRequest, model: PlannedModel) -> MemoryPart:
    """What reducing gradients and updating weights need beyond the room that activations leave to them."""
    total, weight = model.num_parameters, request.bytes_per_weight
    bucket, is_alone = model.zero_config["reduce_bucket_size"], request.world_size == 1
    spread = FLOAT32 * (total // request.num_shards)
    if request.zero_stage == 0:
        needed = FLOAT32 * (total + (0 if is_alone else min(total, WHOLE_BUCKET)))
    elif request.zero_stage == 1 and weight == 2:
        needed = (FLOAT32 + weight) * total
    elif request.zero_stage == 1:  # where the bucket holds all gradients, they are in it when their copies are made
        needed = FLOAT32 * (total + bucket) + (spread if bucket < total else 0)
    elif request.zero_stage == 2 and weight == 2:  # a bucket, its flat copy, and that in float32
        needed = spread + (2 * weight + FLOAT32) * bucket
    elif request.zero_stage == 2:  # the bucket and its copy; in the update, a copy of the rank's own gradients
        needed = max(2 * spread, 2 * FLOAT32 * bucket + (spread if request.num_micro_batches > 1 else 0))
    else:
        needed = max(2 * spread, spread + 3 * FLOAT32 * bucket)
    beyond = needed - model.step.peak - gradients(request, model).num_bytes
    basis = f"gradients and their buckets, {needed / 1e9:.2f} GB, when activations are gone"
    return MemoryPart("reduction", max(0, beyond), basis)


def gathered_blocks(request: PlanRequest, model: PlannedModel) -> MemoryPart:
    """Whole weights at stage 3: of the block in use and of those ahead of it, and what another one is gathered in."""
    if request.zero_stage < 3 or request.world_size == 1:
        return MemoryPart("gathered blocks", 0, "")
    zero = model.zero_config
    held = min(model.num_parameters, zero["stage3_max_live_parameters"] + zero["stage3_prefetch_bucket_size"])
    return MemoryPart("gathered blocks", request.bytes_per_weight * held, "those in use and gathered ahead")


def start_up(request: PlanRequest, total: int, in_a_step: int) -> MemoryPart:
    """What making the engine needs beyond what a step does: every rank begins with all weights, twice in float32."""
    copies = 2 if request.zero_stage > 0 else 1
    spread = FLOAT32 * (total // request.num_shards) * (1 + len(request.recipe.ema.decays))  # master copy and averages
    needed = copies * FLOAT32 * total + spread
    basis = f"{needed / 1e9:.2f} GB while the weights are being spread, more than a step takes"
    return MemoryPart("start-up", max(0, needed - in_a_step), basis)


def over(request: PlanRequest) -> str:
    return f" / {request.num_shards} ranks" if request.num_shards > 1 else ""


def batch_bytes(request: PlanRequest) -> int:
    shape = request.recipe.model
    latents = shape.in_channels * shape.sample_size**2
    row = 2 * latents + shape.num_text_tokens * shape.text_hidden_size
    return FLOAT32 * (request.rows_per_rank * row + 2 * request.recipe.train.global_batch_size * latents)
