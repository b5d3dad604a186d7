"""The planner against numbers worked out by hand, for the paper's cell: P = 47,843,492."""

from dataclasses import replace
from pathlib import Path

import pytest

from ifvit.benchmark.plan import Plan, fitting_changes, make_plan
from ifvit.benchmark.plan_check import refuse_too_large
from ifvit.benchmark.plan_memory import host_bytes
from ifvit.benchmark.plan_request import Assumptions, PlanRequest
from ifvit.benchmark.plan_text import plan_json, plan_text
from ifvit.benchmark.planned_device import device_named
from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe

RECIPE = Path(__file__).parents[3] / "recipes/coco256/cross_intermediate.yaml"
P = 47_843_492
FP32 = "train.precision=fp32"


def planned(
    *overrides: str, gpu: str = "h200", nodes: int = 1, gpus_per_node: int = 8, assumptions: Assumptions | None = None
) -> Plan:
    recipe = load_recipe(RECIPE, ["train.micro_batch_size=32", *overrides])
    device = device_named(gpu)
    assert device is not None
    return make_plan(PlanRequest(recipe, device, nodes, gpus_per_node, assumptions or Assumptions()))


def part_bytes(plan: Plan) -> dict[str, int]:
    return {part.name: part.num_bytes for part in plan.parts}


def test_state_at_stage_1_in_bf16() -> None:
    parts = part_bytes(planned())
    share = P // 8
    assert parts["weights"] == 2 * P
    assert parts["fp32 master"] == 4 * share
    assert parts["gradients"] == 4 * P
    assert part_bytes(planned("train.micro_batch_size=16"))["gradients"] == (4 + 2) * P  # of the micro-batch before
    assert parts["Adam moments"] == 8 * share
    assert parts["EMA"] == 4 * share


def test_state_at_stage_0_in_float32_is_24_bytes_per_parameter_with_two_averages() -> None:
    overrides = "runtime.zero_stage=0", FP32, "ema.decays=[0.999, 0.9999]", "train.micro_batch_size=16"
    parts = part_bytes(planned(*overrides))
    assert "fp32 master" not in parts
    assert parts["weights"] + parts["gradients"] + parts["Adam moments"] + parts["EMA"] == (4 + 4 + 8 + 2 * 4) * P


def test_the_total_is_the_sum_and_names_its_largest_part() -> None:
    plan = planned()
    assert plan.memory_gb == pytest.approx(sum(part_bytes(plan).values()) / 1e9)
    assert plan.largest_part.name == "activations"
    assert plan.fits


def test_whole_weights_must_fit_before_they_are_spread() -> None:
    assert "start-up" not in part_bytes(planned("train.micro_batch_size=32"))
    small_steps = "runtime.zero_stage=3", "train.micro_batch_size=1", "train.activation_checkpointing=1.0"
    parts = part_bytes(planned(*small_steps, "model.hidden_size=1024"))
    others = ("frozen models", "batch", "CUDA context")
    tensors = sum(size for name, size in parts.items() if name not in others)
    num_parameters = planned("model.hidden_size=1024").model.num_parameters
    assert tensors == (4 + 4) * num_parameters + (4 + 4) * (num_parameters // 8)
    assert parts["start-up"] > 0


def test_where_it_does_not_fit_the_next_smaller_micro_batch_does() -> None:
    plan = planned("train.micro_batch_size=256", gpu="4090", gpus_per_node=1)
    assert plan.fits  # 20.2 of 24 GB
    tight = replace(plan, request=replace(plan.request, device=replace(plan.request.device, memory_gb=16.0)))
    assert not tight.fits
    changes = fitting_changes(tight)
    assert changes[0].setting == "train.micro_batch_size=128"
    assert changes[0].memory_gb < 16
    text = plan_text(tight, changes)
    assert "does NOT fit" in text
    assert "--set train.micro_batch_size=128" in text


def test_communication_in_values_and_bytes() -> None:
    moved = P * 7 // 8
    bf16, fp32 = planned().communication, planned(FP32).communication
    stage_0 = planned(FP32, "runtime.zero_stage=0").communication
    assert (stage_0.values, stage_0.num_bytes) == (2 * moved, 8 * moved)
    assert (fp32.values, fp32.num_bytes) == (2 * moved, 8 * moved)
    assert (bf16.values, bf16.num_bytes) == (3 * moved, 10 * moved)  # DeepSpeed all-reduces, then gathers
    assert planned("train.micro_batch_size=256", gpus_per_node=1).communication.num_bytes == 0


def test_seconds_of_a_step() -> None:
    seconds = planned().seconds
    assert seconds.forward_and_backward == pytest.approx(3 * 32 * 25.567e9 / (0.4 * 989.4e12), rel=1e-3)
    assert seconds.exposed == pytest.approx(10 * P * 7 / 8 / 450e9, rel=1e-6)  # nothing hides it: overlap_comm is off
    assert seconds.optimizer == pytest.approx((28 + 4 + 20 + 2 + 12) * P / 8 / 4.8e12, rel=1e-6)
    assert seconds.waiting_for_data == 0
    assert seconds.step == pytest.approx(seconds.forward_and_backward + seconds.exposed + seconds.optimizer)
    slow = planned(assumptions=Assumptions(samples_per_second=1000)).seconds
    assert slow.step == pytest.approx(seconds.step + 0.032 - seconds.compute)


def test_between_nodes_the_ports_of_a_node_work_together() -> None:
    assert planned(nodes=2, gpus_per_node=4).request.link_gb_per_second == 4 * 50
    assert planned(nodes=2, gpus_per_node=4, gpu="4090").request.link_gb_per_second == 32


def test_few_samples_are_bound_by_the_start_of_kernels() -> None:
    plan = planned("train.micro_batch_size=1", "train.global_batch_size=8")
    assert plan.seconds.forward_and_backward == pytest.approx(len(plan.model.step.operations) * 5e-6)
    assert 500 < len(plan.model.step.operations) < 2000


def test_disk_and_the_interval_between_saves() -> None:
    plan = planned()
    assert plan.storage.checkpoint == 16 * P
    assert plan.storage.checkpoints == 4 * 16 * P  # three are kept while one is written
    assert plan.storage.shards == pytest.approx(50e9, rel=0.03)  # facts.md: 1.4 + 49 GB
    milestones = planned("checkpoint.every_steps=100000", "checkpoint.milestone_every_steps=200000")
    assert milestones.storage.num_checkpoints == 4 + 5


def test_a_save_costs_a_copy_or_all_of_its_writing() -> None:
    copied, written = planned(), planned("checkpoint.asynchronous=false")
    assert copied.checkpoint_interval.hours_between_failures == 50_677 / 8
    assert copied.checkpoint_interval.seconds_of_save == pytest.approx(16 * P / 8 / 25e9)
    assert written.checkpoint_interval.seconds_of_save == pytest.approx(16 * P / 1e9)
    young = (2 * 16 * P / 1e9 * 50_677 / 8 * 3600) ** 0.5
    assert written.checkpoint_interval.seconds == pytest.approx(young)
    slow = planned(assumptions=Assumptions(disk=1e-4)).checkpoint_interval
    assert slow.seconds == pytest.approx(16 * P / 1e5)  # the one before must be on disk


def test_what_each_stage_moves() -> None:
    moved = P * 7 // 8
    stage_2 = planned("runtime.zero_stage=2").communication
    stage_3 = planned("runtime.zero_stage=3").communication
    assert (stage_2.values, stage_2.num_bytes) == (2 * moved, 6 * moved)
    assert (stage_3.values, stage_3.num_bytes, stage_3.hideable_bytes) == (3 * moved, 8 * moved, 4 * moved)


@pytest.mark.parametrize("stage, values, num_bytes", [(1, 3, 10), (2, 4 + 1, 4 * 4 + 2), (3, 4 * 3, 4 * 8)])
def test_what_four_micro_batches_move(stage: int, values: int, num_bytes: int) -> None:
    """Stage 1 reduces once; 2 each time, where no whole gradients are kept; 3 gathers the weights each time, too."""
    moved = P * 7 // 8
    communication = planned(f"runtime.zero_stage={stage}", "train.micro_batch_size=8").communication
    assert (communication.values, communication.num_bytes) == (values * moved, num_bytes * moved)


def test_an_offloaded_optimiser_is_on_the_host() -> None:
    here, there = (planned("runtime.zero_stage=2", f"runtime.offload_optimizer={flag}") for flag in ("false", "true"))
    assert set(part_bytes(here)) - set(part_bytes(there)) == {"fp32 master", "Adam moments", "EMA"}
    assert host_bytes(there.request, P) - host_bytes(here.request, P) == (4 + 8 + 4 + 4) * (P // 8)
    assert there.seconds.optimizer > here.seconds.optimizer


def test_the_host_of_rank_0_holds_whole_weights_at_the_start() -> None:
    (line,) = [line for line in plan_text(planned(), []).splitlines() if "rank 0's, at start" in line]
    assert line.split()[4] == f"{2 * 4 * P / 1e9:.2f}"


def test_recomputed_blocks_cost_less_than_a_forward_pass_and_save_memory() -> None:
    """A block's last product is not made again: backward does not need what it gives."""
    kept, recomputed = (planned(f"train.activation_checkpointing={rate}") for rate in (0.0, 1.0))
    assert recomputed.seconds.recomputation == pytest.approx(0.72 * kept.seconds.compute / 3, rel=0.05)
    assert recomputed.model.step.peak < kept.model.step.peak / 4


def test_token_ids_cost_the_text_encoder_and_less_disk() -> None:
    plan = planned("data.text_storage=token_ids")
    assert plan.storage.shards == pytest.approx(1.7e9, rel=0.1)
    # 2 x 85 M x 77 tokens x 32 rows in float32 at 60% of 66.9 TFLOP/s
    assert plan.seconds.text_encoder == pytest.approx(2 * 85.05e6 * 77 * 32 / (0.6 * 66.9e12), rel=1e-3)


def test_json_has_the_numbers_of_the_text() -> None:
    plan = planned()
    record = plan_json(plan, [])
    assert record["parameters"] == P
    assert record["memory_gb"] == plan.memory_gb
    assert record["seconds"]["step"] == plan.seconds.step
    assert f"{P:,} parameters" in plan_text(plan, [])


def test_a_batch_that_cannot_be_split_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"train\.global_batch_size: 256 cannot be split evenly over 3 ranks"):
        planned(gpus_per_node=3)


def test_steps_that_do_not_fit_here_are_not_made() -> None:
    plan = planned("train.micro_batch_size=1")
    refuse_too_large(plan, 100 * 10**9)
    with pytest.raises(UserError, match=r"--check: needs about .* GB, 1\.0 are free here; give a smaller"):
        refuse_too_large(plan, 10**9)


def test_the_model_is_known_without_a_gpu() -> None:
    model = planned().model
    assert model.num_parameters == P
    assert model.forward_gflops == pytest.approx(25.567, abs=1e-3)
    assert model.largest_block == (12 + 2) * 512**2 + (1 + 4 + 1 + 1) * 512 + 4 * 512  # two norms, biases, a skip
