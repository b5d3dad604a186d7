"""`python -m data_prep shards`, from a COCO folder to shards that webdataset and our loader read."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
import yaml

from data_prep.coco_source import CocoSource
from data_prep.main import main
from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from ifvit.data.coco import read_coco
from ifvit.data.images import load_pixels
from ifvit.data.loader import BatchLoader
from ifvit.data.shard_check import check_shards
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.text_encoder import TextEncoder
from tests.drawn_coco import draw_coco, edit_annotations, tiny_recipe, tiny_values
from tests.other_autoencoder import other_autoencoder
from tests.stored_samples import stored_ids


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def made(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards' root; tests that change it copy it."""
    root = tmp_path_factory.mktemp("shards")
    make_shards(tiny_recipe(coco, root))
    return root


@pytest.fixture
def own_coco(coco: Path, tmp_path: Path) -> Path:
    return shutil.copytree(coco, tmp_path / "coco")


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "shards")


def samples_of(folder: Path) -> list[dict]:
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    return list(webdataset.WebDataset(tars, shardshuffle=False).decode())


def test_webdataset_reads_what_the_encoders_gave(coco: Path, made: Path) -> None:
    images = read_coco(coco, "train")
    autoencoder = Autoencoder.load("random-autoencoder-small")
    text_encoder = TextEncoder.load("random-clip-small", None, 12)
    samples = samples_of(made / "train")
    assert [sample["__key__"] for sample in samples] == [f"{image.id:012d}" for image in images]
    for image, sample in zip(images, samples, strict=True):
        count = len(image.prompts)
        moments = autoencoder.encode(load_pixels(image, 32)[None])[0]
        ids = text_encoder.tokenize(image.prompts)
        embeds = text_encoder.encode(ids)
        stored = np.stack([sample[f"prompt_embeds.{caption}.npy"] for caption in range(count)])
        assert sample["prompts.json"] == list(image.prompts)
        assert sample["input_ids.npy"].dtype == np.uint16
        assert sample["input_ids.npy"].tolist() == ids.tolist()
        assert sample["latents.npy"].dtype == stored.dtype == np.float16
        np.testing.assert_allclose(sample["latents.npy"], moments.numpy(), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(stored, embeds.numpy(), rtol=2e-3, atol=2e-3)
        assert f"prompt_embeds.{count}.npy" not in sample


def test_the_loader_reads_the_same_arrays_as_webdataset(made: Path) -> None:
    by_id = {int(sample["__key__"]): sample for sample in samples_of(made / "train")}
    with BatchLoader(TrainingData((ShardSet.open(made / "train"),)), 0, 10, 0.1) as loader:
        batch = next(loader)
    assert sorted(batch.sample_ids.tolist()) == sorted(by_id)
    for row, id_ in enumerate(batch.sample_ids.tolist()):
        sample = by_id[id_]
        assert np.array_equal(batch.moments[row].numpy(), sample["latents.npy"])
        captions = [sample[name] for name in sample if name.startswith("prompt_embeds.")]
        assert any(np.array_equal(batch.prompt_embeds[row].numpy(), caption) for caption in captions)


def test_padded_positions_are_stored_not_cut_off(made: Path) -> None:
    last = np.stack([sample["prompt_embeds.0.npy"][-1] for sample in samples_of(made / "train")])
    assert np.abs(last).mean() > 0.1
    assert len(np.unique(last, axis=0)) == len(last)


def test_token_ids_storage_has_no_embeddings(coco: Path, tmp_path: Path) -> None:
    make_shards(tiny_recipe(coco, tmp_path, "data.text_storage=token_ids"))
    for sample in samples_of(tmp_path / "train"):
        assert {name for name in sample if not name.startswith("__")} == {
            "latents.npy",
            "input_ids.npy",
            "prompts.json",
        }


def test_training_refuses_shards_of_another_autoencoder_or_scale(coco: Path, made: Path, tmp_path: Path) -> None:
    shard_set = ShardSet.open(made / "train")
    other = Autoencoder.load(other_autoencoder(tmp_path)).identity
    with pytest.raises(UserError, match=r"^encoders\.autoencoder: .*other content"):
        check_shards(tiny_recipe(coco, made), shard_set, other, shard_set.text_encoder_identity)
    with pytest.raises(UserError, match=r"^encoders\.scaling_factor: is 0\.2301"):
        check_shards(tiny_recipe(coco, made, "encoders.scaling_factor=0.2301"), shard_set)


def test_the_scale_travels_with_the_shards(coco: Path, own: Path) -> None:
    measured = ShardSet.open(own / "train")
    assert measured.scaling_factor == measured.measured_scaling_factor
    moments = np.stack([sample["latents.npy"] for sample in samples_of(own / "train")]).astype(np.float64)
    mean, logvar = np.split(moments, 2, axis=1)
    latents = mean + np.exp(logvar / 2) * np.random.default_rng(0).normal(size=(400, *mean.shape))
    assert measured.scaling_factor * latents.std() == pytest.approx(1, rel=0.01)

    before = [path.stat().st_ino for path in sorted((own / "train").glob("*.tar"))]
    make_shards(tiny_recipe(coco, own, "encoders.scaling_factor=0.2301"))
    chosen = ShardSet.open(own / "train")
    assert (chosen.scaling_factor, chosen.measured_scaling_factor) == (0.2301, measured.scaling_factor)
    assert [path.stat().st_ino for path in sorted((own / "train").glob("*.tar"))] == before
    check_shards(tiny_recipe(coco, own, "encoders.scaling_factor=0.2301"), chosen)


def command(coco_root: Path, tmp_path: Path, *arguments: str) -> int:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values(coco_root, tmp_path / "unused")))
    return main(["shards", str(recipe), "--out", str(tmp_path / "out"), *arguments])


def test_the_command_says_what_it_made(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(coco, tmp_path, "--set", "encoders.scaling_factor=0.5") == 0
    out = capsys.readouterr().out
    assert "3 shards, 10 samples, 19 prompts" in out
    assert "scaling_factor: 0.50000 (the recipe's, measured here: " in out
    assert out.count("has random weights") == 2
    assert (tmp_path / "out" / "train" / "index.json").is_file()
    assert not (tmp_path / "unused").exists()
    assert command(coco, tmp_path) == 0
    assert "3 shards (3 were there already)" in capsys.readouterr().out


def test_a_folder_is_printed_on_one_line(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(coco, tmp_path, "--out", str(tmp_path / "a\nb\x1b")) == 0
    assert command(coco, tmp_path, "--out", str(tmp_path / "c\nd"), "--task", "0", "--num-tasks", "2") == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/a\\nb\\x1b/train: 3 shards, " in out
    assert f"{tmp_path}/c\\nd/train: 2 shards made, 1 of 3 are missing" in out


def break_jpeg(root: Path) -> None:
    path = root / "train2014" / "COCO_train2014_000000000016.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_image(root: Path) -> None:
    (root / "train2014" / "COCO_train2014_000000000016.jpg").unlink()


def remove_captions(root: Path) -> None:
    def edit(content: dict) -> None:
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 16]

    edit_annotations(root, edit)


def add_unknown_caption(root: Path) -> None:
    edit_annotations(root, lambda c: c["annotations"].append({"id": 77777, "image_id": 999, "caption": "Lost."}))


def break_json(root: Path) -> None:
    (root / "annotations" / "captions_train2014.json").write_text('{"images": [')


def remove_json(root: Path) -> None:
    (root / "annotations" / "captions_train2014.json").unlink()


@pytest.mark.parametrize(
    "damage, arguments, words",
    [
        (
            break_jpeg,
            [],
            ["data.max_bad_share: ", "1 damaged (id 16, ", "); image 16: COCO_train2014_000000000016.jpg: "],
        ),
        (remove_image, [], ["data.max_bad_share: ", "1 missing file (id 16, ", "000016.jpg: cannot be opened"]),
        (remove_captions, [], ["data.max_bad_share: ", "1 no captions (id 16, "]),
        (add_unknown_caption, [], ["captions of images that are not listed: 77777 (image_id 999)"]),
        (break_json, [], ["captions_train2014.json: cannot be read as JSON"]),
        (remove_json, [], ["data.split: ", "captions_train2014.json is missing"]),
        (shutil.rmtree, [], ["data.coco_root: ", "is no folder"]),
        (None, ["--split", "val"], ["data.split: ", "captions_val2014.json is missing"]),
        (None, ["--split", "../x"], ["data.split: "]),
        (None, ["--dry-run", "--workers", "0"], ["--workers: is 0, must be at least 1"]),
        (None, ["--set", "data.sampels_per_shard=3"], ["data.sampels_per_shard: unknown field"]),
        (None, ["--set", "model.in_channels=16"], ["model.in_channels: is 16", "4"]),
        (None, ["--set", "model.text_hidden_size=768"], ["model.text_hidden_size: is 768", "64"]),
        (None, ["--set", "encoders.autoencoder=CompVis/vae"], ["encoders.autoencoder: ", "give a local folder"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    own_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage, arguments: list[str], words: list[str]
) -> None:
    if damage:
        damage(own_coco)
    assert command(own_coco, tmp_path, *arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert all(word in errors[0] for word in words), errors[0]
    assert not list(tmp_path.glob("out/*/index.json"))


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_a_source_that_cannot_be_read_is_one_line(
    coco: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    def refused(self: CocoSource) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.file))

    monkeypatch.setattr(CocoSource, "fingerprint", refused)
    assert command(coco, tmp_path, *arguments) == 2
    assert "captions_train2014.json: Permission denied; give this user the right" in capsys.readouterr().err


@pytest.mark.coco
def test_real_images_and_encoders_from_a_shell(test_data: Path, repository: Path, tmp_path: Path) -> None:
    settings = {
        "data.coco_root": test_data / "coco_mini",
        "encoders.autoencoder": test_data / "vae_f8c4",
        "encoders.tokenizer": test_data / "clip_tokenizer",
        "data.samples_per_shard": 60,
    }
    overrides = [word for field, value in settings.items() for word in ("--set", f"{field}={value}")]
    arguments = [*overrides, "--split", "val", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "data_prep", "shards", "recipes/coco_mini.yaml", *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "2 shards, 100 samples, 500 prompts" in done.stdout
    assert "note: random-clip-small has random weights" in done.stdout
    shard_set = ShardSet.open(tmp_path / "val")
    assert shard_set.measured_scaling_factor == pytest.approx(0.575, rel=0.05)  # the data's README, on another split
    assert shard_set.text_encoder_identity["random"]
    listing = json.loads((test_data / "coco_mini" / "annotations" / "captions_val2014.json").read_text())
    assert stored_ids(shard_set) == sorted(image["id"] for image in listing["images"])
    reconstruct_first(shard_set, test_data)


def reconstruct_first(shard_set: ShardSet, test_data: Path) -> None:
    """The stored mean of an image, decoded, is that image."""
    autoencoder = Autoencoder.load(str(test_data / "vae_f8c4"))
    images = read_coco(test_data / "coco_mini", "val")[:8]
    means = torch.stack(
        [torch.from_numpy(sample["latents.npy"][:4].copy()) for sample in samples_of(shard_set.folder)[:8]]
    )
    decoded = autoencoder.decode(means.float())
    pixels = torch.stack([load_pixels(image, 64) for image in images])
    distances = (decoded[:, None] - pixels[None]).square().mean((2, 3, 4))
    assert distances.argmin(dim=1).tolist() == list(range(8))
