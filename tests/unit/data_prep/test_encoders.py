"""data_prep/encoders.py, and the training and measuring behind it, for a few steps."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from data_prep import encoders
from data_prep.autoencoder_training import rate_factor
from data_prep.clip_training import clip_pixels, contrastive_loss
from data_prep.scene_attributes import Canonical
from data_prep.scene_set import SceneSet
from ifvit.config.errors import UserError
from ifvit.data.scenes import Description, Group
from ifvit.encoders.clip import Clip

FEW_STEPS = ("--autoencoder-steps", "2", "--clip-steps", "2")


def train(scenes: Path, out: Path, *arguments: str) -> None:
    parser = argparse.ArgumentParser()
    encoders.add_arguments(parser)
    threads = torch.get_num_threads()
    try:
        encoders.run(parser.parse_args([str(scenes), "--out", str(out), *arguments]))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(scenes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encoders")
    train(scenes_folder, out, *FEW_STEPS)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(file for name in ("autoencoder", "clip") for file in (folder / name).iterdir())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_the_same_scenes_and_options_give_the_same_bytes(trained: Path, scenes_folder: Path, tmp_path: Path) -> None:
    train(scenes_folder, tmp_path, *FEW_STEPS)
    assert contents(tmp_path) == contents(trained)
    assert json.loads((tmp_path / "quality.json").read_text()) == json.loads((trained / "quality.json").read_text())


def test_another_seed_gives_other_weights_of_the_same_files(trained: Path, scenes_folder: Path, tmp_path: Path) -> None:
    train(scenes_folder, tmp_path, *FEW_STEPS, "--seed", "1")
    ours, theirs = contents(tmp_path), contents(trained)
    assert sorted(ours) == sorted(theirs)
    differing = {name for name in ours if ours[name] != theirs[name]}
    assert differing == {"autoencoder/diffusion_pytorch_model.safetensors", "clip/model.safetensors"}


def test_quality_and_origin_stand_beside_the_weights(trained: Path) -> None:
    report = json.loads((trained / "quality.json").read_text())
    assert report["seed"] == 0 and report["autoencoder_steps"] == 2 and report["scenes"]["seed"] == 3
    for split in ("val", "unseen"):
        quality = report["quality"][split]
        assert 0 < quality["reconstruction"]["psnr"] < 30  # after two steps
        assert 0 <= quality["retrieval"]["top1"] < 0.9
        assert set(quality["retrieval"]["against_almost_true"]) == {"count", "color", "shape", "relation"}


def test_what_is_finished_is_kept(trained: Path, scenes_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(trained)
    train(scenes_folder, trained, "--autoencoder-steps", "1", "--clip-steps", "1")
    assert contents(trained) == before
    assert "is there already and kept" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--autoencoder-steps", "--clip-steps", "--threads"])
def test_a_bad_number_is_one_line(scenes_folder: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=rf"{option}: is 0, must be at least 1"):
        train(scenes_folder, tmp_path / "out", option, "0")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        train(tmp_path / "none", tmp_path / "out", *FEW_STEPS)


def test_the_saved_image_processor_does_what_training_did(trained: Path, train_scenes: SceneSet) -> None:
    clip = Clip.load(str(trained / "clip"))
    pixels = train_scenes.pixels[:2]
    inputs = clip.image_processor(list(pixels), return_tensors="pt", input_data_format="channels_last")
    assert torch.allclose(inputs.pixel_values, clip_pixels(pixels), atol=1e-6)


def test_captions_that_are_also_true_are_no_wrong_answers() -> None:
    star, circle = (Canonical.of(Description((Group(1, "red", shape),))) for shape in ("star", "circle"))
    images = torch.eye(2)
    scale = torch.tensor(10.0)
    # Both images show the same: each caption fits both, so nothing is left to tell apart.
    same = contrastive_loss(images, torch.ones(2, 2), [star, star], [star, star], scale)
    assert same == 0
    apart = contrastive_loss(images, torch.eye(2), [star, circle], [star, circle], scale)
    wrong = contrastive_loss(images, torch.eye(2).flip(0), [star, circle], [star, circle], scale)
    assert apart < 1e-3 and wrong > 5


def test_the_learning_rate_rises_stays_and_falls() -> None:
    factors = [rate_factor(step, 100, warmup_steps=10) for step in range(100)]
    assert factors[0] == 0.1 and factors[9:30] == [1.0] * 21
    assert factors[30:] == sorted(factors[30:], reverse=True) and 0.01 <= factors[-1] < 0.02
