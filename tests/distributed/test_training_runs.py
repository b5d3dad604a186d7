"""What must not change a run: the number of ranks, accumulation, the ZeRO stage, an interruption."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.shards import make_shards
from ifvit.data.shard_set import ShardSet
from tests.distributed.training_runs import assert_bit_equal, assert_same_to_summation_order, curve, final_tensors
from tests.drawn_coco import draw_coco, tiny_recipe
from tests.training_fixtures import Train


@pytest.mark.parametrize(
    "world_size, micro_batch_size, zero_stage",
    [(1, 2, 1), (1, 8, 0), (2, 4, 1), (2, 2, 0), (2, 1, 1), (1, 4, 2), (2, 2, 2), (1, 8, 3), (2, 2, 3)],
)
def test_ranks_accumulation_and_stage_do_not_change_the_run(
    train: Train, undisturbed: Path, tmp_path: Path, world_size: int, micro_batch_size: int, zero_stage: int
) -> None:
    overrides = [f"train.micro_batch_size={micro_batch_size}", f"runtime.zero_stage={zero_stage}"]
    assert set(train(world_size, tmp_path, *overrides)) == {0}
    assert_same_to_summation_order(tmp_path, undisturbed)


@pytest.mark.parametrize(
    "world_size, zero_stage, precision, more",
    [
        (1, 1, "fp32", ""),
        (2, 0, "fp32", ""),
        (2, 1, "bf16", "train.max_grad_norm=0.1"),
        (2, 2, "fp32", "train.activation_checkpointing=0.5"),
        (2, 2, "bf16", "runtime.offload_optimizer=true"),
        (2, 3, "fp32", "runtime.offload_optimizer=true"),
        (2, 3, "bf16", "train.activation_checkpointing=1.0"),
    ],
)
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(
    train: Train, tmp_path: Path, world_size: int, zero_stage: int, precision: str, more: str
) -> None:
    overrides = [f"train.precision={precision}", f"runtime.zero_stage={zero_stage}", "train.micro_batch_size=2"]
    overrides += [more] if more else []
    assert set(train(world_size, tmp_path / "whole", *overrides)) == {0}
    for last_step in (3, 6, 8):  # no multiples of checkpoint.every_steps: each stop saves where it is
        assert set(train(world_size, tmp_path / "parts", *overrides, f"train.max_steps={last_step}")) == {0}
    assert_bit_equal(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.fault(
    "F09",
    injected="ranks 2, 1, 2, 1, 2, ZeRO stage 0, 1, 2, 3, 0 and another accumulation at each resume",
    detected="nothing has to be",
    recovered="the same samples, captions and noise bit for bit; losses, weights, moments, EMA to summation order",
    lost="nothing",
)
def test_another_rank_count_stage_and_accumulation_at_each_resume(
    train: Train, undisturbed: Path, tmp_path: Path
) -> None:
    starts = ((2, 0, 4, 1), (1, 1, 8, 3), (2, 2, 1, 4), (1, 3, 4, 6), (2, 0, 2, 8))
    for world_size, zero_stage, micro_batch_size, last_step in starts:
        overrides = [f"runtime.zero_stage={zero_stage}", f"train.micro_batch_size={micro_batch_size}"]
        overrides.append(f"train.max_steps={last_step}")
        assert set(train(world_size, tmp_path, *overrides)) == {0}
    assert_same_to_summation_order(tmp_path, undisturbed)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_bf16_keeps_float32_weights_from_the_first_step(train: Train, tmp_path: Path, zero_stage: int) -> None:
    """DeepSpeed rounds the initial weights to bf16; ours start as the exact float32 ones."""
    for precision in ("bf16", "fp32"):
        overrides = [f"train.precision={precision}", f"runtime.zero_stage={zero_stage}"]
        train(2, tmp_path / precision, *overrides, "train.max_steps=1")
    bf16, fp32 = final_tensors(tmp_path / "bf16"), final_tensors(tmp_path / "fp32")
    weights = [name for name in fp32 if name.startswith("weights/")]
    assert all(torch.equal(bf16[name], fp32[name]) for name in weights)  # the first learning rate is 0


def test_sample_grids_are_the_same_at_stage_3(train: Train, tmp_path: Path) -> None:
    prompts = ["sampling.prompts=[A red bus., Two cats.]", "sampling.num_inference_steps=4", "train.max_steps=2"]
    grids = []
    for world_size, zero_stage in ((1, 1), (2, 3)):
        overrides = [f"runtime.zero_stage={zero_stage}", *prompts]
        assert set(train(world_size, tmp_path / str(zero_stage), *overrides)) == {0}
        with Image.open(tmp_path / str(zero_stage) / "tiny/samples/step-00000002.png") as grid:
            grids.append(np.asarray(grid, dtype=np.int16))
    assert grids[0].std() > 1
    assert np.abs(grids[0] - grids[1]).max() <= 1


def test_users_mistakes_end_all_ranks_with_one_message(train: Train, undisturbed: Path, tmp_path: Path) -> None:
    assert train(2, tmp_path, "train.micro_batch_size=3", "train.global_batch_size=9")[1] == 2
    message, code = train(2, undisturbed, "optimizer.learning_rate=2.0e-3")
    assert code == 2
    assert "optimizer.learning_rate is 0.001 there and 0.002 here" in str(message)


def test_nothing_left_to_do_is_no_error(train: Train, undisturbed: Path) -> None:
    before = curve(undisturbed)
    assert train(1, undisturbed) == [0]
    assert curve(undisturbed) == before


def test_a_checkpoint_of_another_model_is_refused(train: Train, undisturbed: Path, tmp_path: Path) -> None:
    train(1, tmp_path, "model.hidden_size=32", "train.max_steps=1")
    (tmp_path / "tiny/checkpoints/step-00000001").rename(tmp_path / "taken")
    (tmp_path / "other").mkdir()
    train(1, tmp_path / "other", "train.max_steps=1")
    (tmp_path / "taken").rename(tmp_path / "other/tiny/checkpoints/step-00000007")
    (message,) = train(1, tmp_path / "other", "train.max_steps=2")
    assert "weights of another model: model.hidden_size is 32 there and 16 here" in str(message)


def test_a_signal_on_one_rank_stops_all_at_the_same_step(train: Train, tmp_path: Path) -> None:
    assert train(2, tmp_path / "parts", signal_rank=1) == [75, 75]
    assert [record["step"] for record in curve(tmp_path / "parts")] == [1, 2, 3]
    assert train(2, tmp_path / "parts") == [0, 0]
    train(2, tmp_path / "whole")
    assert_bit_equal(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_what_is_no_number_is_never_saved(train: Train, tmp_path: Path, zero_stage: int) -> None:
    """Saves fall between the logged steps, where nobody looks at the loss."""
    overrides = ["optimizer.learning_rate=1.0e+30", "checkpoint.every_steps=1", "tracking.log_every_steps=100"]
    messages = train(2, tmp_path, *overrides, f"runtime.zero_stage={zero_stage}")
    assert all("not finite" in str(message) for message in messages)
    assert all(tensor.isfinite().all() for tensor in final_tensors(tmp_path).values())


def test_shards_may_move_and_must_not_change(train: Train, shards_root: Path, tmp_path: Path) -> None:
    train(1, tmp_path / "runs", "train.max_steps=2")
    shutil.copytree(shards_root, tmp_path / "moved")
    assert train(1, tmp_path / "runs", "train.max_steps=3", f"data.shards_root={tmp_path / 'moved'}") == [0]
    scaling_factor = ShardSet.open(shards_root / "train").scaling_factor
    other = tiny_recipe(
        draw_coco(tmp_path / "coco", num_images=7), tmp_path / "other", f"encoders.scaling_factor={scaling_factor}"
    )
    make_shards(other)
    (message,) = train(1, tmp_path / "runs", "train.max_steps=4", f"data.shards_root={tmp_path / 'other'}")
    assert "other samples than those that run" in str(message)


def test_a_damaged_log_ends_both_ranks_with_one_message(train: Train, tmp_path: Path) -> None:
    train(2, tmp_path, "train.max_steps=2")
    log = tmp_path / "tiny/metrics.jsonl"
    log.write_text("not json\n" + log.read_text())
    message, code = train(2, tmp_path)
    assert "metrics.jsonl: line 1" in str(message)
    assert code == 2


def test_the_seed_decides_the_initial_weights(train: Train, undisturbed: Path, tmp_path: Path) -> None:
    train(1, tmp_path, "seed=1", "train.max_steps=1")  # the first learning rate is 0
    train(1, tmp_path, "name=again", "seed=1", "train.max_steps=1")
    train(1, tmp_path, "name=other", "seed=2", "train.max_steps=1")
    one, again, other = (final_tensors(tmp_path, name) for name in ("tiny", "again", "other"))
    name = "weights/mid_block.block.to_qkv.weight"
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name])
