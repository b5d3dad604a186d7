"""At ZeRO stage 3 a block's whole weights are there for its forward and for its backward pass, not in between."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from ifvit.config.schema import ModelConfig, RuntimeConfig, TrainConfig
from ifvit.model.uvit import UViT
from ifvit.runtime.distributed import Ranks
from ifvit.training.blocks import blocks_of
from ifvit.training.deepspeed_config import GATHERED_BLOCKS
from ifvit.training.engine import DeepSpeedEngine
from tests.distributed.rank_pool import RankPool
from tests.distributed.tiny_training import MODEL, OPTIMIZER


class GatheredBytes:
    """Bytes of the whole weights that a module was run with and that something still holds."""

    def __init__(self) -> None:
        self.gathered: list[tuple[StorageWeakRef, int]] = []

    def add(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            assert parameter.numel() > 0, "not gathered"
            storage = parameter.untyped_storage()
            self.gathered.append((StorageWeakRef(storage), storage.nbytes()))

    def held(self) -> int:
        return sum(num_bytes for storage, num_bytes in self.gathered if not storage.expired())


def held_bytes(ranks: Ranks, conditioning: str, precision: str, recomputed_share: float) -> dict[str, Any]:
    """Bytes held after each block's forward pass, the model's and backward, in the first step, where nothing
    is gathered ahead, and in the third. And those of the largest block, and of all."""
    shape = ModelConfig.model_validate(MODEL.model_dump() | {"depth": 8, "conditioning": conditioning})
    fields = {"precision": precision, "activation_checkpointing": recomputed_share}
    config = TrainConfig.model_validate({"max_steps": 1, "global_batch_size": 4, "micro_batch_size": 2} | fields)
    model, dtype = UViT(shape), torch.bfloat16 if precision == "bf16" else torch.float32
    blocks = blocks_of(model)
    sizes = [sum(parameter.numel() for parameter in block.parameters()) * dtype.itemsize for block in blocks]
    in_blocks = {module for block in blocks for module in block.modules()}
    engine = DeepSpeedEngine(model, config, OPTIMIZER, RuntimeConfig(zero_stage=3), ranks.world_size)
    weights, after_blocks = GatheredBytes(), []
    for module in set(model.modules()) - in_blocks:
        module.register_forward_pre_hook(lambda module, _: weights.add(module.parameters(recurse=False)))
    for block in blocks:
        block.register_forward_pre_hook(lambda block, _: weights.add(block.parameters()))
        block.register_forward_hook(lambda *_: after_blocks.append(weights.held()))
    latents = torch.randn(2, shape.in_channels, shape.sample_size, shape.sample_size, dtype=dtype)
    text = torch.randn(2, shape.num_text_tokens, shape.text_hidden_size, dtype=dtype)
    steps = []
    for _ in range(3):
        after_blocks.clear()
        loss = engine.model(latents, torch.tensor([1.0, 2.0]), text).float().square().mean()
        forward = {"after_blocks": after_blocks[: len(blocks)], "after_forward": weights.held()}
        engine.backward(loss)
        steps.append(forward | {"after_backward": weights.held()})
        engine.step(1e-3)
    return {"first": steps[0], "third": steps[2], "largest_block": max(sizes), "all_blocks": sum(sizes)}


@pytest.mark.parametrize(
    "conditioning, precision, recomputed_share",
    [("concat", "fp32", 0.0), ("cross_attention", "fp32", 0.0), ("cross_attention", "bf16", 0.5)],
)
def test_whole_weights_are_not_kept_for_backward(
    pools: dict[int, RankPool], conditioning: str, precision: str, recomputed_share: float
) -> None:
    arguments = {"conditioning": conditioning, "precision": precision, "recomputed_share": recomputed_share}
    for held in pools[2].run(held_bytes, **arguments):
        first, third, block = held["first"], held["third"], held["largest_block"]
        assert len(first["after_blocks"]) > 8
        assert held["all_blocks"] > 8 * block
        assert max(first["after_blocks"]) < block
        assert first["after_forward"] == first["after_backward"] == 0
        assert max(*third["after_blocks"], third["after_forward"]) <= (GATHERED_BLOCKS + 1) * block
        assert third["after_backward"] == 0


def linear_function(ranks: Ranks) -> str:
    DeepSpeedEngine(
        UViT(MODEL),
        TrainConfig(max_steps=1, global_batch_size=8, micro_batch_size=4, precision="fp32"),
        OPTIMIZER,
        RuntimeConfig(zero_stage=3),
        ranks.world_size,
    )
    return torch.nn.functional.linear.__module__


def test_torchs_linear_stays_torchs(pools: dict[int, RankPool]) -> None:
    """DeepSpeed would replace it for all models in the process, encoders too, by a slower one."""
    assert "deepspeed" not in str(pools[2].run(linear_function))
