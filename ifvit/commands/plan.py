"""What a recipe needs on so many GPUs: memory, communication, time of a step, hours, disk, and how often to save.

All of it is computed, on any machine and without a GPU: parameters, FLOPs and activations by running the recipe's model
with shapes alone, the rest from formulas that are printed beside the numbers. What no formula knows is an option.
"""

import argparse
import json
from typing import TYPE_CHECKING

from ifvit.config.arguments import add_recipe_arguments, recipe_from
from ifvit.config.errors import UserError

if TYPE_CHECKING:
    from ifvit.benchmark.plan_request import PlanRequest
    from ifvit.benchmark.planned_device import PlannedDevice

# Option, its unit or value, what it is; each is a field of Assumptions, whose default holds where it is not given.
ASSUMED = {
    "mfu": ("SHARE", "model FLOP/s in the step's forward and backward, as a share of the GPU's peak; default: 0.4"),
    "node_link": ("GB/S", "of one GPU to other nodes; default: 50 (a 400 Gb/s port for each GPU)"),
    "host_link": ("GB/S", "of one GPU to its host's memory; default: 25"),
    "host_bandwidth": ("GB/S", "of the host's memory, for one GPU's part of an offloaded optimiser; default: 50"),
    "disk": ("GB/S", "at which all ranks together write a checkpoint; default: 1"),
    "context_gb": ("GB", "of the GPU that CUDA, NCCL and libraries take; default: 1.5"),
    "hours_between_failures": ("HOURS", "of one GPU; default: 50677"),
    "launch_microseconds": ("US", "from the start of one kernel to the next, at the least; default: 5"),
    "samples_per_second": ("N", "that one rank's loader reads; default: measured on two Xeon cores"),
}
NUMBERS = {"num_images": "images in the shards", "num_captions": "captions of each of them"}
RATES = {
    "memory_gb": ("memory_gb", "GB of one GPU"),
    "bandwidth": ("bandwidth_gb_per_second", "GB/s of the GPU's memory"),
    "gpu_link": ("link_gb_per_second", "GB/s of one GPU to the others of its node"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--gpus-per-node", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--gpu", default="h200", metavar="NAME", help="b200, h200, h100, a100, 4090, ...; default: h200"
    )
    parser.add_argument(
        "--tflops",
        type=float,
        metavar="X",
        help="TFLOP/s of matrix products in the recipe's precision; default: the GPU's data sheet",
    )
    for name, (_, text) in RATES.items():
        parser.add_argument(option(name), type=float, metavar="X", help=f"{text}; default: the GPU's data sheet")
    for name, (unit, text) in ASSUMED.items():
        parser.add_argument(option(name), type=float, metavar=unit, help=text)
    for name, text in NUMBERS.items():
        parser.add_argument(option(name), type=int, metavar="N", help=f"{text}; default: those of COCO 2014 train")
    parser.add_argument(
        "--check", action="store_true", help="also run a few steps here, one rank, and compare them with their own plan"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    request = request_from(arguments)
    from ifvit.benchmark.plan import fitting_changes, make_plan
    from ifvit.benchmark.plan_check import check_plan, check_text
    from ifvit.benchmark.plan_text import plan_json, plan_text

    plan = make_plan(request)
    changes = fitting_changes(plan)
    checked = check_plan(request.recipe) if arguments.check else []
    if arguments.json:
        record = plan_json(plan, changes) | {"check": [vars(row) | {"error": row.error} for row in checked]}
        print(json.dumps(record, indent=2))
        return
    print(plan_text(plan, changes))
    if checked:
        print("", *check_text(checked), sep="\n")


def request_from(arguments: argparse.Namespace) -> "PlanRequest":
    """What the command line asks to plan. Raises UserError."""
    recipe = recipe_from(arguments, unused=("data.", "encoders.", "runtime.runs_root"))
    device = planned_device(arguments, f"{recipe.train.precision}_tflops")
    given = {name: getattr(arguments, name) for name in (*ASSUMED, *NUMBERS) if getattr(arguments, name) is not None}
    for name, value in given.items():
        if not value > 0:  # nor is NaN
            raise UserError(f"{option(name)}: is {value:g}, must be above 0")
    if given.get("mfu", 0) > 1:
        raise UserError(f"--mfu: is {given['mfu']:g}, must be at most 1")
    from ifvit.benchmark.plan_request import Assumptions, PlanRequest

    return PlanRequest(recipe, device, arguments.nodes, arguments.gpus_per_node, Assumptions(**given))


def planned_device(arguments: argparse.Namespace, tflops_field: str) -> "PlannedDevice":
    """The GPU that is named, with the rates that are given in place of its own; --tflops is `tflops_field` of it.

    Raises UserError.
    """
    from ifvit.benchmark.planned_device import MEMORY, PlannedDevice, device_named

    device = device_named(arguments.gpu)
    if device is None:
        raise UserError(
            f"--gpu: {arguments.gpu} is not in the table ({', '.join(MEMORY)}); name the one most like it and "
            "give what differs with --tflops, --memory-gb, --bandwidth and --gpu-link"
        )
    fields = {"tflops": tflops_field} | {name: field for name, (field, _) in RATES.items()}
    given = {field: getattr(arguments, name) for name, field in fields.items() if getattr(arguments, name) is not None}
    for name, field in fields.items():
        if not given.get(field, 1) > 0:
            raise UserError(f"{option(name)}: is {given[field]:g}, must be above 0")
    return PlannedDevice(**(vars(device) | given | ({"name": f"{device.name}, changed"} if given else {})))


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
