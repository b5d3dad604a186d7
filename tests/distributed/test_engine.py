"""What no ZeRO stage, number of ranks or way to save memory may change: losses, weights, moments, averages."""

from typing import Any

import pytest
import torch

from ifvit.config.schema import RuntimeConfig, TrainConfig
from ifvit.model.uvit import UViT
from ifvit.runtime.distributed import Ranks
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS
from tests.distributed.rank_pool import RankPool
from tests.distributed.tiny_training import MODEL, OPTIMIZER, train_tiny

TENSORS = ("weights", "exp_avg", "exp_avg_sq", "0.9", "0.5")
Pools = dict[int, RankPool]


def assert_close(ours: dict[str, Any], theirs: dict[str, Any], rtol: float, atol: float, share: float) -> None:
    """Losses and gradient norms to `rtol`, every weight and average to `rtol` and `atol`, every element of a moment to
    `rtol` and that share of its tensor's largest, of a square twice as much, as it has twice its gradient's error:
    moments are so small that an `atol` for weights would hold anything.
    """
    shares = {"exp_avg": share, "exp_avg_sq": 2 * share}
    for key in ("losses", "grad_norms"):
        assert ours[key] == pytest.approx(theirs[key], rel=rtol), key
    for kind in TENSORS:
        assert ours[kind].keys() == theirs[kind].keys()
        for name, tensor in theirs[kind].items():
            torch.testing.assert_close(
                ours[kind][name],
                tensor,
                rtol=rtol,
                atol=shares[kind] * float(tensor.abs().max()) if kind in MOMENTS else atol,
                msg=lambda text, name=f"{kind} {name}": f"{name}: {text}",
            )


def assert_bit_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert (ours["losses"], ours["grad_norms"]) == (theirs["losses"], theirs["grad_norms"])
    assert [(k, n) for k in TENSORS for n, tensor in theirs[k].items() if not torch.equal(ours[k][n], tensor)] == []


@pytest.mark.parametrize("world_size, zero_stage", [(1, 0), (2, 0), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)])
def test_clipped_steps_are_the_same_at_every_stage(pools: Pools, world_size: int, zero_stage: int) -> None:
    clipped = {"max_grad_norm": 0.05}
    expected, *_ = pools[1].run(train_tiny, train_fields=clipped)
    assert min(expected["grad_norms"]) > 0.1
    for ours in pools[world_size].run(train_tiny, zero_stage=zero_stage, train_fields=clipped):
        assert_close(ours, expected, rtol=1e-5, atol=2e-6, share=5e-6)
    free, *_ = pools[1].run(train_tiny)
    assert expected["exp_avg"]["head.norm.weight"].norm() < 0.5 * free["exp_avg"]["head.norm.weight"].norm()


@pytest.mark.parametrize("world_size, zero_stage", [(2, 2), (2, 3)])
def test_bf16_is_the_same_at_stages_1_to_3(pools: Pools, world_size: int, zero_stage: int) -> None:
    bf16 = {"precision": "bf16"}
    expected, *_ = pools[world_size].run(train_tiny, train_fields=bf16)
    ours, *_ = pools[world_size].run(train_tiny, zero_stage=zero_stage, train_fields=bf16)
    # Half of one step of Adam at this learning rate.
    assert_close(ours, expected, rtol=1e-2, atol=5e-3, share=2e-2)


@pytest.mark.parametrize(
    "world_size, zero_stage, precision, is_offloaded",
    [(1, 0, "fp32", False), (2, 0, "fp32", False), (2, 1, "fp32", False), (2, 1, "bf16", False),
     (2, 2, "fp32", False), (2, 2, "bf16", False), (2, 2, "bf16", True), (1, 3, "fp32", False), (2, 3, "bf16", False)],
)  # fmt: skip
def test_a_gradient_that_is_not_finite_changes_nothing(
    pools: Pools, world_size: int, zero_stage: int, precision: str, is_offloaded: bool
) -> None:
    arguments = {"zero_stage": zero_stage, "train_fields": {"precision": precision}}
    arguments |= {"runtime_fields": {"offload_optimizer": is_offloaded}}
    told, *_ = pools[world_size].run(train_tiny, **arguments, skipped_step=3)
    last_rank = world_size - 1
    for ours in pools[world_size].run(train_tiny, **arguments, faults=f"step.gradient@{last_rank}:3=nan"):
        assert ours["is_offloaded"] == is_offloaded
        assert ours["skipped"] == [False, False, True, False]
        assert ours["is_unchanged"] == [False, True, False]
        assert ours["optimizer_step"] == 3
        assert [str(norm) == "nan" for norm in ours["grad_norms"]] == ours["skipped"]
        assert [k for k in TENSORS for n, tensor in told[k].items() if not torch.equal(ours[k][n], tensor)] == []
    assert told["skipped"] == [False, False, True, False]


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_the_optimizers_own_count_goes_on_where_it_was(pools: Pools, zero_stage: int) -> None:
    for ours in pools[2].run(train_tiny, zero_stage=zero_stage, updates_before=5, skipped_step=2):
        assert ours["optimizer_step"] == 5 + 3


def moments_made_again(ranks: Ranks, zero_stage: int, precision: str) -> dict[str, Any]:
    """What `create_moments` does to those of a first step: whether any was other than zero before it and is after it,
    and all are where they were; and the optimiser's count."""
    fields = {"max_steps": 1, "global_batch_size": 4, "micro_batch_size": 2, "precision": precision}
    train, runtime = TrainConfig.model_validate(fields), RuntimeConfig(zero_stage=zero_stage)
    engine = DeepSpeedEngine(UViT(MODEL), train, OPTIMIZER, runtime, ranks.world_size)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    latents = torch.randn(2, MODEL.in_channels, MODEL.sample_size, MODEL.sample_size, dtype=dtype)
    text = torch.randn(2, MODEL.num_text_tokens, MODEL.text_hidden_size, dtype=dtype)
    engine.backward(engine.model(latents, torch.tensor([1.0, 2.0]), text).float().square().mean())
    engine.step(1e-3)

    def moments() -> list[torch.Tensor]:
        return [engine.moment(fragment, key) for fragment in engine.fragments for key in MOMENTS]

    made = moments()  # held, so that no other one can come to where they are
    was_any_filled = any(moment.any() for moment in made)
    engine.create_moments(7)
    return {
        "was_any_filled": was_any_filled,
        "is_any_filled": any(moment.any() for moment in moments()),
        "are_where_they_were": [moment.data_ptr() for moment in moments()] == [moment.data_ptr() for moment in made],
        "optimizer_step": engine.optimizer_step(),
    }


@pytest.mark.parametrize("zero_stage, precision", [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32")])
def test_moments_that_are_made_again_take_no_more_memory(pools: Pools, zero_stage: int, precision: str) -> None:
    """As at a rollback. At stages 1 and 2 DeepSpeed has views of those that the optimiser made."""
    for ours in pools[2].run(moments_made_again, zero_stage=zero_stage, precision=precision):
        assert (ours["was_any_filled"], ours["is_any_filled"]) == (True, False)
        assert (ours["are_where_they_were"], ours["optimizer_step"]) == (True, 7)


@pytest.mark.parametrize("world_size, zero_stage", [(1, 1), (2, 3)])
def test_activations_computed_again_are_the_same(pools: Pools, world_size: int, zero_stage: int) -> None:
    expected, *_ = pools[world_size].run(train_tiny, zero_stage=zero_stage)
    for share in (0.5, 1.0):
        fields = {"activation_checkpointing": share}
        ours, *_ = pools[world_size].run(train_tiny, zero_stage=zero_stage, train_fields=fields)
        assert_bit_equal(ours, expected)


@pytest.mark.parametrize("zero_stage", [2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_offloaded_optimizer_is_the_same(pools: Pools, zero_stage: int, precision: str) -> None:
    arguments = {"zero_stage": zero_stage, "train_fields": {"precision": precision, "max_grad_norm": 0.05}}
    expected, *_ = pools[2].run(train_tiny, **arguments)
    ours, *_ = pools[2].run(train_tiny, **arguments, runtime_fields={"offload_optimizer": True})
    assert (expected["is_offloaded"], ours["is_offloaded"]) == (False, True)
    tolerances = (1e-5, 2e-6, 5e-6) if precision == "fp32" else (1e-3, 1e-4, 5e-4)
    assert_close(ours, expected, *tolerances)


@pytest.mark.matrix
@pytest.mark.parametrize("world_size, zero_stage", [(1, 1), (2, 3)])
def test_compiled_blocks_are_the_same(pools: Pools, world_size: int, zero_stage: int) -> None:
    """Half of the blocks also compute their activations again."""
    arguments = {"zero_stage": zero_stage, "train_fields": {"activation_checkpointing": 0.5}}
    expected, *_ = pools[world_size].run(train_tiny, **arguments)
    ours, *_ = pools[world_size].run(train_tiny, **arguments, runtime_fields={"compile": True})
    assert (ours["compiled_graphs"] > 0, ours["graph_breaks"]) == (True, 0)
    assert_close(ours, expected, rtol=1e-4, atol=1e-5, share=5e-5)


@pytest.mark.parametrize("zero_stage, precision", [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32")])
def test_nothing_is_clipped_unless_the_recipe_says_so(pools: Pools, zero_stage: int, precision: str) -> None:
    """DeepSpeed's own default clips to a norm of 1."""
    arguments = {"zero_stage": zero_stage, "train_fields": {"precision": precision}, "steps": 1}
    plain, *_ = pools[1].run(train_tiny, **arguments)
    large, *_ = pools[1].run(train_tiny, **arguments, faults="step.gradient=scale 64")
    assert large["grad_norms"][0] > 10
    for name, tensor in plain["exp_avg"].items():
        torch.testing.assert_close(large["exp_avg"][name], 64 * tensor, rtol=1e-5, atol=1e-6)
