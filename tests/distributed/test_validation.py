"""The validation loss is that of the averaged weights, wherever they are, on any number of ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.shards import make_shards
from ifvit.data.reader import SampleReader
from ifvit.data.shard_set import ShardSet
from ifvit.data.validation_set import ValidationSet
from ifvit.diffusion.objective import latents_from_moments
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.model.uvit import UViT
from ifvit.training.validation import ValidationDraws
from tests.distributed.training_runs import RUN, curve, final_tensors
from tests.drawn_coco import draw_coco, tiny_recipe
from tests.training_fixtures import Train

VALIDATED = [
    "data.validation_split=held_out",
    "tracking.validation_every_steps=2",
    "tracking.validation_num_samples=7",
    "tracking.log_every_steps=3",
    "train.max_steps=5",
]


@pytest.fixture(scope="module")
def both_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("both_splits")
    for split in ("train", "held_out"):
        coco = draw_coco(tmp_path_factory.mktemp("coco"), split, num_images=10)
        make_shards(tiny_recipe(coco, root, f"data.split={split}"))
    return root


def expected_loss(runs_root: Path, shards_root: Path) -> float:
    """From the run's newest checkpoint, all samples at once, with none of the code that trains."""
    recipe = tiny_recipe(Path("/nowhere"), shards_root, *RUN, *VALIDATED)
    samples = ValidationSet(ShardSet.open(shards_root / "held_out"), num_samples=7)
    assert len(samples) == 7
    model = UViT(recipe.model)
    kind = f"ema-{recipe.ema.decays[0]}/"
    tensors = final_tensors(runs_root)
    assert any(name.startswith(kind) for name in tensors), sorted({name.split("/")[0] for name in tensors})
    model.load_state_dict({name.removeprefix(kind): t for name, t in tensors.items() if name.startswith(kind)})
    batch = samples.read(SampleReader(samples.shard_set), np.arange(7)).to("cpu")
    draws = ValidationDraws(samples.places, samples.latent_shape, 1000, recipe.seed).of(
        np.arange(7), torch.device("cpu")
    )
    scaling_factor = ShardSet.open(shards_root / "train").scaling_factor
    latents = latents_from_moments(batch.moments, draws.latent_noise) * scaling_factor
    noisy_latents = NoiseSchedule(recipe.diffusion).add_noise(latents, draws.noise, draws.timesteps)
    with torch.no_grad():
        noise_pred = model(noisy_latents, draws.timesteps + 1, batch.prompt_embeds)
    return float((noise_pred - draws.noise).double().square().mean())


@pytest.mark.parametrize("world_size, zero_stage", [(1, 1), (2, 0), (2, 2), (2, 3)])
def test_it_is_the_loss_of_the_averages_on_the_held_out_samples(
    train: Train, both_splits: Path, tmp_path: Path, world_size: int, zero_stage: int
) -> None:
    overrides = [*VALIDATED, f"runtime.zero_stage={zero_stage}", "train.micro_batch_size=2"]
    assert set(train(world_size, tmp_path, *overrides, shards_root=both_splits)) == {0}
    records = curve(tmp_path)
    assert [record["step"] for record in records] == [2, 3, 4, 5]
    losses = {record["step"]: record["validation_loss"] for record in records if "validation_loss" in record}
    assert losses.keys() == {2, 4, 5}
    assert losses[5] == pytest.approx(expected_loss(tmp_path, both_splits), rel=2e-6)
    assert losses[2] != losses[4]
    assert len(set().union(*records)) < 60  # MLflow shows a chart of each


def test_validation_does_not_change_training(train: Train, both_splits: Path, tmp_path: Path) -> None:
    for name, *overrides in (("with", *VALIDATED), ("without", "train.max_steps=5")):
        assert train(1, tmp_path, f"name={name}", *overrides, shards_root=both_splits) == [0]
    ours, theirs = final_tensors(tmp_path, "with"), final_tensors(tmp_path, "without")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_missing_split_leaves_no_run_behind(train: Train, tmp_path: Path) -> None:
    message, code = train(2, tmp_path, "data.validation_split=held_out")
    assert code == 2
    assert "python -m data_prep shards RECIPE --split held_out" in str(message)
    assert not (tmp_path / "tiny").exists()
