"""A DeepSpeed that lacks what ifvit uses of its inside ends a run at its start, in one line."""

from importlib import import_module
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.config.schema import RuntimeConfig, TrainConfig
from ifvit.model.uvit import UViT
from ifvit.runtime.distributed import Ranks
from ifvit.training.deepspeed_inside import check_inside, replace_functions
from ifvit.training.engine import DeepSpeedEngine
from tests.distributed.rank_pool import RankPool
from tests.distributed.tiny_training import MODEL, OPTIMIZER


def start_without(ranks: Ranks, zero_stage: int, precision: str, module: str, owner: str, name: str) -> str:
    """What starting an engine says when `owner` of DeepSpeed's `module`, or the module itself, has no `name`."""
    config = TrainConfig(max_steps=1, global_batch_size=8, micro_batch_size=4, precision=precision)
    inside = import_module(f"deepspeed.{module}")
    target = getattr(inside, owner) if owner else inside
    with patch.object(target, name):
        delattr(target, name)
        try:
            DeepSpeedEngine(UViT(MODEL), config, OPTIMIZER, RuntimeConfig(zero_stage=zero_stage), ranks.world_size)
        except UserError as error:
            return str(error)
    return "started"


@pytest.mark.parametrize(
    "zero_stage, precision, module, owner, name, said",
    [
        (0, "fp32", "comm.torch", "TorchBackend", "all_gather_coalesced", "TorchBackend.all_gather_coalesced"),
        (1, "bf16", "runtime.bf16_optimizer", "BF16_Optimizer", "update_lp_params", "BF16_Optimizer.update_lp_params"),
        (2, "fp32", "runtime.zero.stage_1_and_2", "", "is_invalid_grad_norm",
         "deepspeed.runtime.zero.stage_1_and_2.is_invalid_grad_norm"),
        (3, "fp32", "runtime.zero.stage3", "DeepSpeedZeroOptimizer_Stage3",
         "_reassign_or_swap_out_partitioned_parameters",
         "DeepSpeedZeroOptimizer_Stage3._reassign_or_swap_out_partitioned_parameters"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_at_the_start(
    pools: dict[int, RankPool], zero_stage: int, precision: str, module: str, owner: str, name: str, said: str
) -> None:
    arguments = {"zero_stage": zero_stage, "precision": precision, "module": module, "owner": owner, "name": name}
    for line in pools[2].run(start_without, **arguments):
        assert f"has no {said}, which ifvit uses; 0.19.8 has: pip install deepspeed==0.19.8" in line


def check_another_optimizer(ranks: Ranks) -> str:
    engine = SimpleNamespace(enable_backward_allreduce=True, zero_optimization_stage=lambda: 3, optimizer=object())
    try:
        check_inside(engine, UViT(MODEL))
    except UserError as error:
        return str(error)
    return "passed"


def test_an_unknown_optimizer_is_refused(pools: dict[int, RankPool]) -> None:
    (line,) = pools[1].run(check_another_optimizer)
    assert "has no BF16_Optimizer or DeepSpeedZeroOptimizer or DeepSpeedZeroOptimizer_Stage3, which ifvit uses" in line


def replace_on_a_gpu_machine(ranks: Ranks) -> bool:
    """Whether the operation that a run on a CPU does without is replaced where there is CUDA that is not to be used."""
    inside = import_module("deepspeed.comm.torch")
    with patch.object(torch.cuda, "is_available", lambda: True), patch.object(inside, "build_shm_op") as original:
        replace_functions()
        return inside.build_shm_op is not original


def test_a_cpu_run_on_a_gpu_machine_compiles_no_operation(pools: dict[int, RankPool]) -> None:
    assert pools[1].run(replace_on_a_gpu_machine) == [True]
