"""A plan as one screen, and as JSON."""

from typing import Any

from ifvit.benchmark.plan import Change, Plan
from ifvit.benchmark.plan_memory import first_host_bytes, host_bytes
from ifvit.benchmark.plan_request import SAMPLES_PER_SECOND, PlanRequest


def plan_text(plan: Plan, changes: list[Change]) -> str:
    """All numbers with their units and what each rests on."""
    return "\n".join([*heading(plan), "", *memory_lines(plan, changes), "", *time_lines(plan), "", *run_lines(plan)])


def heading(plan: Plan) -> list[str]:
    request = plan.request
    recipe = request.recipe
    return [
        f"{recipe.name} on {machines(request)}: ZeRO stage {recipe.runtime.zero_stage}, {recipe.train.precision}, "
        f"{request.rows_per_rank} samples per GPU and step in {request.num_micro_batches} micro-batch(es) of "
        f"{recipe.train.micro_batch_size}",
        f"P = {plan.model.num_parameters:,} parameters; {plan.model.forward_gflops:.3f} GFLOPs per image and forward "
        "pass; GB are 10^9 bytes",
    ]


def machines(request: PlanRequest) -> str:
    """ "2 nodes x 8 h200"."""
    nodes = "1 node" if request.num_nodes == 1 else f"{request.num_nodes} nodes"
    return f"{nodes} x {request.gpus_per_node} {request.device.name}"


def memory_lines(plan: Plan, changes: list[Change]) -> list[str]:
    rows = [row(part.name, f"{part.num_bytes / 1e9:.2f}", part.basis) for part in plan.parts]
    room = plan.request.device.memory_gb - plan.memory_gb
    verdict = f"fits, {room:.1f} left" if plan.fits else f"does NOT fit, {-room:.1f} too much"
    total = row("total", f"{plan.memory_gb:.2f}", f"of {plan.request.device.memory_gb:g}: {verdict}")
    largest = f"largest: {plan.largest_part.name}"
    if not plan.fits:
        ways = " or ".join(f"--set {change.setting} ({change.memory_gb:.1f} GB)" for change in changes)
        largest += f"; fits with {ways or 'no single change: combine them, or take more or larger GPUs'}"
    host = row(
        "of its host",
        f"{host_bytes(plan.request, plan.model.num_parameters) / 1e9:.2f}",
        "what checkpoints are copied to, an offloaded optimiser; 3 GB of the process and its loader on top",
    )
    first_host = row(
        "rank 0's, at start",
        f"{first_host_bytes(plan.model.num_parameters) / 1e9:.2f}",
        "the whole weights, and once more as read from a checkpoint, until they are on the GPUs",
    )
    return ["Memory of one GPU        GB   rests on", *rows, f"{total}; {largest}", host, first_host]


def time_lines(plan: Plan) -> list[str]:
    request, seconds = plan.request, plan.seconds
    recipe, device, assumed = request.recipe, request.device, request.assumptions
    peak = device.bf16_tflops if recipe.train.precision == "bf16" else device.fp32_tflops
    reads = assumed.samples_per_second or SAMPLES_PER_SECOND[recipe.data.text_storage]
    moved = plan.communication
    traffic = (
        f"{moved.operations}: {moved.values:,} values, {moved.num_bytes / 1e9:.2f} GB at "
        f"{request.link_gb_per_second:g} GB/s, {1e3 * seconds.communication:.1f} ms; the rest is hidden"
    )
    compute = f"{assumed.mfu:.0%} of {peak:g} TFLOP/s (--mfu); at least {assumed.launch_microseconds:g} us a kernel"
    rows = [
        ("forward, backward", seconds.forward_and_backward, compute),
        ("recomputation", seconds.recomputation, "blocks that activation checkpointing repeats"),
        ("text encoder", seconds.text_encoder, "on line, in fp32"),
        ("communication", seconds.exposed, traffic),
        ("AdamW, EMA", seconds.optimizer, f"memory traffic at {device.bandwidth_gb_per_second:g} GB/s"),
        ("waiting for data", seconds.waiting_for_data, f"a loader that reads {reads:,.0f} samples/s per rank"),
    ]
    per_second = recipe.train.global_batch_size / seconds.step
    total = row("step", f"{1e3 * seconds.step:.1f}", f"{1 / seconds.step:.2f} steps/s, {per_second:,.0f} samples/s")
    shown = [row(name, f"{1e3 * part:.1f}", basis) for name, part, basis in rows if part > 0]
    return ["Step                     ms   rests on", *shown, total]


def run_lines(plan: Plan) -> list[str]:
    request, storage, interval = plan.request, plan.storage, plan.checkpoint_interval
    recipe, assumed = request.recipe, request.assumptions
    gpu_hours = plan.hours * request.world_size
    return [
        "Run",
        row(
            "hours",
            f"{plan.hours:,.1f}",
            f"{recipe.train.max_steps:,} steps, {gpu_hours:,.0f} GPU hours; checkpoints and grids come on top",
        ),
        row(
            "checkpoints, GB",
            f"{storage.checkpoints / 1e9:.1f}",
            f"{storage.num_checkpoints} x {storage.checkpoint / 1e9:.2f}: weights, moments, averages in fp32; "
            "checkpoint.keep_last, milestones, and one that is being written",
        ),
        row(
            "shards, GB",
            f"{storage.shards / 1e9:.1f}",
            f"{assumed.num_images:,} images, {assumed.num_captions} captions each, {recipe.data.text_storage}",
        ),
        row(
            "save every, min",
            f"{interval.seconds / 60:.0f}",
            f"{interval.steps(plan.seconds.step):,} steps (the recipe: {recipe.checkpoint.every_steps:,}); Young: a "
            f"save costs {interval.seconds_of_save:.2g} s, a failure every {interval.hours_between_failures:,.0f} h",
        ),
    ]


def row(name: str, number: str, basis: str) -> str:
    return f"  {name:18}{number:>9}   {basis}"


def plan_json(plan: Plan, changes: list[Change]) -> dict[str, Any]:
    """The same numbers, by name."""
    request, seconds, interval = plan.request, plan.seconds, plan.checkpoint_interval
    return {
        "recipe": request.recipe.name,
        "device": vars(request.device),
        "nodes": request.num_nodes,
        "gpus_per_node": request.gpus_per_node,
        "assumptions": vars(request.assumptions),
        "parameters": plan.model.num_parameters,
        "forward_gflops": plan.model.forward_gflops,
        "memory_bytes": {part.name: part.num_bytes for part in plan.parts},
        "memory_gb": plan.memory_gb,
        "fits": plan.fits,
        "largest_part": plan.largest_part.name,
        "changes": [vars(change) for change in changes],
        "communication": vars(plan.communication),
        "seconds": vars(seconds) | {"waiting_for_data": seconds.waiting_for_data, "step": seconds.step},
        "hours": plan.hours,
        "checkpoint_bytes": plan.storage.checkpoint,
        "checkpoints_bytes": plan.storage.checkpoints,
        "shards_bytes": plan.storage.shards,
        "save_every_seconds": interval.seconds,
        "save_every_steps": interval.steps(seconds.step),
    }


def header_lines(plan: Plan) -> list[str]:
    """The plan's main numbers, for the head of a recipe."""
    request, seconds, model = plan.request, plan.seconds, plan.model
    return [
        f"{model.num_parameters:,} parameters; {model.forward_gflops:.3f} GFLOPs per forward pass of one image",
        f"{plan.memory_gb:.1f} of {request.device.memory_gb:g} GB per GPU, {plan.largest_part.num_bytes / 1e9:.1f} of "
        f"them {plan.largest_part.name}",
        f"{seconds.step:.3f} s a step, {seconds.exposed:.3f} of it communication; {plan.hours:,.0f} hours on "
        f"{machines(request)} at {request.assumptions.mfu:.0%} MFU",
        f"{plan.storage.checkpoint / 1e9:.1f} GB a checkpoint",
    ]
