"""Seconds of a step: compute, communication that nothing hides, the optimiser, and waiting for data."""

from dataclasses import dataclass

from ifvit.benchmark.frozen_models import FLOAT32, TEXT_BLOCK_PARAMETERS
from ifvit.benchmark.plan_request import SAMPLES_PER_SECOND, PlanRequest
from ifvit.benchmark.planned_model import PlannedModel
from ifvit.training.device_use import FORWARD_AND_BACKWARD

BACKWARD_SHARE = 2 / 3
PRODUCT_MFU = 0.6  # of a frozen encoder's large products, at the least
HIDEABLE = 0.8  # of the pass that it runs beside
ADAM_BYTES = 28  # per parameter: reads weight, gradient and both moments, writes all but the gradient
NORM_BYTES = 4  # reads the gradient
COPY_BYTES = 20  # from stage 1 on: the gradient into flat buffers, twice, and reading the weight to write it back
AVERAGE_BYTES = 12  # per parameter and decay: reads weight and average, writes the average


@dataclass(frozen=True)
class Communication:
    """What one rank sends and receives in a step, in values (numbers) and bytes; P is the number of parameters.

    `hideable_bytes` travel while the GPU computes.
    """

    operations: str
    values: int
    num_bytes: int
    hideable_bytes: int


@dataclass(frozen=True)
class StepSeconds:
    """The parts of a step's time; `communication` is all of it, `exposed` what the step waits for."""

    forward_and_backward: float
    recomputation: float
    text_encoder: float
    communication: float
    exposed: float
    optimizer: float
    data: float

    @property
    def compute(self) -> float:
        return self.forward_and_backward + self.recomputation + self.text_encoder

    @property
    def waiting_for_data(self) -> float:
        return max(0.0, self.data - self.compute)

    @property
    def step(self) -> float:
        return self.compute + self.exposed + self.optimizer + self.waiting_for_data


def step_communication(request: PlanRequest, model: PlannedModel) -> Communication:
    """By ZeRO stage. Gradients are reduced in float32; an all-reduce costs twice what a reduce-scatter does.

    Stages 2 and 3, which keep no whole gradients, reduce those of each micro-batch; stage 3 gathers for each one, too.
    """
    if request.world_size == 1:
        return Communication("none", 0, 0, 0)
    stage, weight = request.zero_stage, request.bytes_per_weight
    num = model.num_parameters * (request.world_size - 1) // request.world_size
    overlaps = bool(model.zero_config["overlap_comm"])
    if stage == 0:
        return Communication("all-reduce of gradients", 2 * num, 8 * num, 0)
    if stage == 1 and request.recipe.train.precision == "bf16":
        # DeepSpeed's bf16 optimiser of stage 1 all-reduces and then gathers: 3 P where 2 P would do.
        operations = "all-reduce of gradients, all-gather of weights"
        return Communication(operations, 3 * num, (8 + weight) * num, 0)
    if stage < 3:
        operations = "reduce-scatter of gradients, all-gather of weights"
        reduced = num * (request.num_micro_batches if stage == 2 else 1)
        hideable = 4 * reduced if overlaps and stage == 2 else 0
        return Communication(operations, reduced + num, 4 * reduced + weight * num, hideable)
    operations = "all-gather of weights in both passes, reduce-scatter of gradients"
    each = num * request.num_micro_batches
    return Communication(operations, 3 * each, (2 * weight + 4) * each, (2 * weight + (4 if overlaps else 0)) * each)


def step_seconds(request: PlanRequest, model: PlannedModel, communication: Communication) -> StepSeconds:
    recipe, device, assumed = request.recipe, request.device, request.assumptions
    peak = 1e12 * (device.bf16_tflops if recipe.train.precision == "bf16" else device.fp32_tflops)
    text = 0.0
    if recipe.data.text_storage == "token_ids":
        # In float32, as the text encoder runs; a matrix product reaches most of that peak.
        flops = 2 * TEXT_BLOCK_PARAMETERS * recipe.model.num_text_tokens * request.rows_per_rank
        text = flops / (1e12 * device.fp32_tflops * max(assumed.mfu, PRODUCT_MFU))
    num_passes = request.num_micro_batches
    useful = FORWARD_AND_BACKWARD * request.rows_per_rank * model.forward_gflops * 1e9
    repeated = max(0.0, num_passes * model.step.flops - useful)
    floor = 0.0
    if not recipe.runtime.compile:  # which joins operations
        launch = assumed.launch_microseconds / 1e6
        floor = num_passes * model.step.floor_seconds(peak, 1e9 * device.bandwidth_gb_per_second, launch)
    compute = max((useful + repeated) / (peak * assumed.mfu), floor)
    recomputation = compute * repeated / (useful + repeated)
    link = 1e9 * request.link_gb_per_second
    hidden = min(communication.hideable_bytes / link, HIDEABLE * BACKWARD_SHARE * compute)
    per_second = assumed.samples_per_second or SAMPLES_PER_SECOND[recipe.data.text_storage]
    return StepSeconds(
        forward_and_backward=compute - recomputation,
        recomputation=recomputation,
        text_encoder=text,
        communication=communication.num_bytes / link,
        exposed=communication.num_bytes / link - hidden,
        optimizer=optimizer_seconds(request, model),
        data=request.rows_per_rank / per_second,
    )


def optimizer_seconds(request: PlanRequest, model: PlannedModel) -> float:
    """Norm, AdamW and averages, bound by the memory they read and write; offloaded also by the link to the host."""
    held = model.num_parameters / request.num_shards
    copies = COPY_BYTES + request.bytes_per_weight if request.zero_stage > 0 else 0
    moved = held * (ADAM_BYTES + NORM_BYTES + copies + AVERAGE_BYTES * len(request.recipe.ema.decays))
    if not request.recipe.runtime.offload_optimizer:
        return moved / (1e9 * request.device.bandwidth_gb_per_second)
    crossing = held * (FLOAT32 + request.bytes_per_weight)  # gradients there, weights back
    assumed = request.assumptions
    return moved / (1e9 * assumed.host_bandwidth) + crossing / (1e9 * assumed.host_link)
