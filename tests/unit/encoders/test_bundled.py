"""The encoders that ifvit brings along: as good as they say, small, and loaded as any others."""

import json
import random

import numpy as np
import pytest
import torch

from data_prep.encoder_quality import empty_scenes, reconstruction_psnr, retrieval
from data_prep.scene_drawing import Scene, SceneOptions, draw_scene
from data_prep.scene_set import SceneSet
from ifvit.data.scene_captions import captions
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.clip import Clip
from ifvit.encoders.locate import BUNDLED_FOLDER
from ifvit.encoders.text_encoder import TextEncoder
from ifvit.evaluation.references import reconstructed
from ifvit.evaluation.scene_detector import detect
from tests.detected_scenes import exact_share

REPORT = json.loads((BUNDLED_FOLDER / "quality.json").read_text())


@pytest.fixture(scope="module", params=[False, True], ids=["trained", "held-out"])
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    """200 scenes of seeds that no encoder was trained on, of trained combinations or each with a held-out one."""
    options = SceneOptions(held_out=request.param)
    return [draw_scene(options, random.Random(f"bundled {number}")) for number in range(200)]


@pytest.fixture(scope="module")
def scene_set(scenes: list[Scene]) -> SceneSet:
    generator = random.Random(0)
    return SceneSet(
        np.stack([scene.pixels for scene in scenes]),
        [tuple(captions(scene.description, scene.sizes, scene.background, 5, generator)) for scene in scenes],
        [scene.description for scene in scenes],
        [scene.boxes for scene in scenes],
    )


def test_together_they_are_small() -> None:
    files = [file for file in BUNDLED_FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8_000_000
    assert {file.suffix for file in files} <= {".json", ".safetensors"}


def test_the_report_says_how_they_were_made_and_meets_the_goals() -> None:
    assert REPORT["scenes"]["num_images"] >= 10_000
    for split in ("val", "unseen"):
        quality = REPORT["quality"][split]
        assert quality["reconstruction"]["psnr"] >= 30 and quality["reconstruction"]["images"] >= 1000
        assert quality["retrieval"]["top1"] >= 0.9 and quality["retrieval"]["gallery"] == 100
    assert REPORT["quality"]["empty"]["reconstruction"]["psnr"] >= 30


def test_reconstructions_keep_every_shape_and_its_color(scenes: list[Scene], scene_set: SceneSet) -> None:
    autoencoder = Autoencoder.load("scenes-autoencoder")
    assert (autoencoder.factor, autoencoder.latent_channels, autoencoder.identity["random"]) == (4, 4, False)
    assert reconstruction_psnr(autoencoder, scene_set.pixels)["psnr"] >= 30
    assert exact_share(reconstructed(scene_set.pixels, autoencoder, batch_size=50), scenes) >= 0.97


def test_an_empty_image_stays_empty() -> None:
    autoencoder = Autoencoder.load("scenes-autoencoder")
    images = empty_scenes()
    assert reconstruction_psnr(autoencoder, images)["psnr"] >= 30
    assert not any(detect(reconstructed(images, autoencoder, batch_size=50)))


def test_the_clip_finds_an_image_s_caption_among_a_hundred(scene_set: SceneSet) -> None:
    clip = Clip.load("scenes-clip")
    assert not clip.notice
    result = retrieval(clip, scene_set)
    assert result["gallery"] == 100 and result["top1"] >= 0.9


def test_the_text_encoder_is_the_clip_s_own() -> None:
    text_encoder = TextEncoder.load("scenes-clip", None, 24)
    assert text_encoder.hidden_size == 128 and not text_encoder.identity["random"]
    embeds = text_encoder.encode_prompts(["a red star", "a red star", ""])
    assert embeds.shape == (3, 24, 128) and torch.equal(embeds[0], embeds[1]) and not torch.equal(embeds[0], embeds[2])
