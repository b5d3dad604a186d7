"""data_prep/encoders.py, and the training and measuring behind it, for a few steps."""

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep import autoencoder_training, clip_training, encoders
from data_prep.autoencoder_training import rate_factor
from data_prep.clip_training import clip_pixels, contrastive_loss, said_by
from data_prep.folder_lock import only_writer
from data_prep.scene_drawing import SceneOptions
from data_prep.scene_folder import FORMAT_VERSION
from data_prep.scene_set import SceneSet
from data_prep.scenes import make_scenes
from ifvit.config.errors import UserError
from ifvit.config.loading import leaves
from ifvit.data.scenes import Description, Group
from ifvit.encoders.clip import Clip
from ifvit.encoders.locate import BUNDLED_FOLDER

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


def test_the_bundled_report_is_what_the_command_writes(trained: Path) -> None:
    ours, bundled = (
        dict(leaves(json.loads((folder / "quality.json").read_text()))) for folder in (trained, BUNDLED_FOLDER)
    )
    assert list(bundled) == list(ours)
    assert bundled["scenes.format_version"] == FORMAT_VERSION


# What the command keeps, refuses and goes on with.


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): (path.read_bytes(), path.stat().st_ino) for path in files}


def test_what_is_finished_is_kept(trained: Path, scenes_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(trained)
    train(scenes_folder, trained, *FEW_STEPS)
    after = everything(trained)
    report = str(trained / "quality.json")
    assert after.pop(report)[0] == before.pop(report)[0] and after == before
    printed = capsys.readouterr().out
    assert printed.count("is there already and kept") == 2
    quality = json.loads((trained / "quality.json").read_text())["quality"]["val"]
    shown = f"to {quality['reconstruction']['psnr']:.1f} dB; their own caption is the nearest of "
    assert re.search(
        rf"^val: \d+ images, reconstructed {shown}\d+ for {quality['retrieval']['top1']:.1%}$", printed, re.M
    )
    assert printed.endswith(f"all numbers in {report}\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--autoencoder-steps", "1"], "--autoencoder-steps: is 1, but {} was made with 2; delete it or use another"),
        (["--clip-steps", "1"], "--clip-steps: is 1, but {} was made with 2"),
        (["--seed", "1"], "--seed: is 1, but {} was made with 0"),
        (["--threads", "2"], "--threads: is 2, but {} was made with 1"),
    ],
)
def test_the_report_never_states_training_that_did_not_happen(
    trained: Path, scenes_folder: Path, arguments: list[str], message: str
) -> None:
    before = everything(trained)
    with pytest.raises(UserError) as error:
        train(scenes_folder, trained, *FEW_STEPS, *arguments)
    assert str(error.value).startswith(message.format(trained))
    assert everything(trained) == before


def test_nor_other_scenes(trained: Path, scenes_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(scenes_folder, tmp_path / "other")
    settings = json.loads((other / "scenes.json").read_text())
    (other / "scenes.json").write_text(json.dumps(settings | {"seed": 4}))
    before = everything(trained)
    with pytest.raises(UserError, match=rf"^SCENES seed: is 4, but {trained} was made with 3; "):
        train(other, trained, *FEW_STEPS)
    assert everything(trained) == before


def test_nor_a_training_of_another_version(trained: Path, scenes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(trained)
    changed = [phase._replace(learning_rate=1.0) for phase in autoencoder_training.phases(2)]
    monkeypatch.setattr(autoencoder_training, "phases", lambda num_steps: changed)
    with pytest.raises(UserError, match=r"^autoencoder\.scenes\.learning_rate: is 1.0, but .* was made with 0.002"):
        train(scenes_folder, trained, *FEW_STEPS)
    assert everything(trained) == before


def test_nor_another_machine_or_other_versions(
    trained: Path, scenes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(trained)
    for name, value, field in (("cpu_model", lambda: "i386", "cpu"), ("version", lambda name: "0", "versions.torch")):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=f"^{field}: is .*, but .* was made with"):
            patch.setattr(encoders, name, value)
            train(scenes_folder, trained, *FEW_STEPS)
    assert everything(trained) == before


def test_an_interrupted_training_is_completed_with_the_same_options_alone(
    trained: Path, scenes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(autoencoder_training, "train_autoencoder", interrupt)
        train(scenes_folder, tmp_path, *FEW_STEPS)
    assert (tmp_path / "clip").is_dir() and not (tmp_path / "autoencoder").exists()
    with pytest.raises(UserError, match=rf"^--clip-steps: is 3, but {tmp_path} was made with 2; "):
        train(scenes_folder, tmp_path, "--autoencoder-steps", "2", "--clip-steps", "3")
    assert not (tmp_path / "quality.json").exists()
    train(scenes_folder, tmp_path, *FEW_STEPS)
    assert contents(tmp_path) == contents(trained)
    assert (tmp_path / "quality.json").read_bytes() == (trained / "quality.json").read_bytes()


def test_encoders_of_unknown_training_are_not_taken_for_ours(
    trained: Path, scenes_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / "encoders.json").unlink()
    with pytest.raises(UserError, match=rf"^--out {copy}: is not empty; give another folder$"):
        train(scenes_folder, copy, *FEW_STEPS)


def test_one_command_at_a_time(trained: Path, scenes_folder: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "out")
    partial = (out / "clip").rename(out / ".clip.partial")
    with (
        only_writer(out, "--out"),
        pytest.raises(UserError, match=rf"^{out}: process {os.getpid()} on .* is writing here; .* another --out$"),
    ):
        train(scenes_folder, out, *FEW_STEPS)
    assert partial.is_dir()


# What is wrong with the input shows before anything is trained.


def without_settings(scenes: Path) -> None:
    (scenes / "scenes.json").unlink()


def with_damaged_settings(scenes: Path) -> None:
    (scenes / "scenes.json").write_text("{")


def without_unseen(scenes: Path) -> None:
    (scenes / "annotations" / "captions_unseen2014.json").unlink()


def with_a_damaged_image(scenes: Path) -> None:
    next(scenes.glob("unseen2014/*.png")).write_bytes(b"no image")


def with_few_images(scenes: Path) -> None:
    shutil.rmtree(scenes)
    make_scenes(scenes, SceneOptions(), num_images=95, num_held_out_images=2, seed=0, workers=1)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (shutil.rmtree, r"^SCENES {}: is not made by `python -m data_prep scenes` \(.*No such file"),
        (without_settings, r"^SCENES {}: is not made by `python -m data_prep scenes` \(.*No such file"),
        (with_damaged_settings, r"^SCENES {}: is not made by `python -m data_prep scenes` \(Expecting"),
        (without_unseen, r"^{}/annotations/captions_unseen2014.json: is missing"),
        (with_a_damaged_image, r"^{}/unseen2014/scene_unseen_\d+.png: cannot be read"),
        (with_few_images, r"^SCENES {}: has 95 images in train, must have at least 96"),
    ],
)
def test_bad_scenes_are_refused_before_training(
    scenes_folder: Path,
    tmp_path: Path,
    spoil: Callable[[Path], Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = shutil.copytree(scenes_folder, tmp_path / "scenes")
    spoil(copy)
    monkeypatch.setattr(clip_training, "train_clip", lambda *arguments: pytest.fail("was trained"))
    with pytest.raises(UserError, match=message.format(copy)):
        train(copy, tmp_path / "out", *FEW_STEPS)
    assert not (tmp_path / "out").exists()


def test_scenes_of_one_group_are_enough(tmp_path: Path) -> None:
    options = SceneOptions(max_count=1)
    make_scenes(tmp_path / "scenes", options, num_images=96, num_held_out_images=2, seed=0, workers=1)
    train(tmp_path / "scenes", tmp_path / "out", "--autoencoder-steps", "1", "--clip-steps", "1")
    quality = json.loads((tmp_path / "out" / "quality.json").read_text())["quality"]
    for split in ("val", "unseen"):
        assert set(quality[split]["retrieval"]["against_almost_true"]) == {"count", "color", "shape"}


@pytest.mark.parametrize("option", ["--autoencoder-steps", "--clip-steps", "--threads"])
def test_a_bad_number_is_one_line(scenes_folder: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=rf"{option}: is 0, must be at least 1"):
        train(scenes_folder, tmp_path / "out", option, "0")
    assert not (tmp_path / "out").exists()


def test_the_saved_image_processor_does_what_training_did(trained: Path, train_scenes: SceneSet) -> None:
    clip = Clip.load(str(trained / "clip"))
    pixels = train_scenes.pixels[:2]
    inputs = clip.image_processor(list(pixels), return_tensors="pt", input_data_format="channels_last")
    assert torch.allclose(inputs.pixel_values, clip_pixels(pixels), atol=1e-6)


def test_captions_that_are_also_true_are_no_wrong_answers() -> None:
    star, circle = (Description((Group(1, "red", shape),)) for shape in ("star", "circle"))
    images = torch.eye(2)
    scale = torch.tensor(10.0)
    # Both images show the same: each caption fits both, so nothing is left to tell apart.
    same = contrastive_loss(images, torch.ones(2, 2), [star, star], [star, star], scale)
    assert same == 0
    apart = contrastive_loss(images, torch.eye(2), [star, circle], [star, circle], scale)
    wrong = contrastive_loss(images, torch.eye(2).flip(0), [star, circle], [star, circle], scale)
    assert apart < 1e-3 and wrong > 5


def test_no_caption_is_passed_over() -> None:
    """Those after it would be taken for other images' captions."""
    assert said_by("two red stars below a blue star") == Description(
        (Group(2, "red", "star"), Group(1, "blue", "star")), "below"
    )
    with pytest.raises(AssertionError, match="two cats"):
        said_by("two cats")


def test_the_learning_rate_rises_stays_and_falls() -> None:
    factors = [rate_factor(step, 100, warmup_steps=10) for step in range(100)]
    assert factors[0] == 0.1 and factors[9:30] == [1.0] * 21
    assert factors[30:] == sorted(factors[30:], reverse=True) and 0.01 <= factors[-1] < 0.02
