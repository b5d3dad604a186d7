"""data_prep/autoencoder_training.py: what the bundled autoencoder sees in training. Its learning: test_encoders.py."""

from pathlib import Path

import numpy as np
import pytest

from data_prep import autoencoder_training
from data_prep.autoencoder_training import BATCH_SIZE, Phase, draw_batch, phases, train_autoencoder, train_phase
from data_prep.scene_drawing import SceneOptions

DARK = SceneOptions(tones=("dark",), patterns=("plain",))


@pytest.fixture
def scenes() -> np.ndarray:
    """(50, 64, 64, 3): a red square each; no background is as colorful."""
    pixels = np.full((50, 64, 64, 3), 7, np.uint8)
    pixels[:, 20:40, 20:40, 0] = 255
    return pixels


@pytest.mark.parametrize("phase", phases(10), ids=lambda phase: phase.name)
def test_batches_hold_scenes_and_their_share_of_empty_images(phase: Phase, scenes: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    images = np.concatenate([draw_batch(scenes, DARK, phase.empty_share, generator).numpy() for _ in range(400)])
    has_shape = images[:, 0, 30, 30] == 1
    assert images.shape == (400 * BATCH_SIZE, 3, 64, 64) and np.abs(images).max() <= 1
    assert abs((1 - has_shape.mean()) - phase.empty_share) < 0.02
    colorfulness = (images.max(axis=1) - images.min(axis=1)).max(axis=(1, 2))
    assert colorfulness[~has_shape].max(initial=0) < 0.2 < colorfulness[has_shape].min()
    assert images[~has_shape].max(initial=-1) < 0  # of the world's own backgrounds
    assert (scenes[:, 30, 30, 0] == 255).all()  # the scenes themselves are left as they are


def test_empty_images_come_last_and_change_the_weights(
    scenes: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Phase, float]] = []

    def watched(model, phase: Phase, *arguments) -> None:
        train_phase(model, phase, *arguments)
        seen.append((phase, sum(parameter.abs().sum().item() for parameter in model.parameters())))

    monkeypatch.setattr(autoencoder_training, "train_phase", watched)
    train_autoencoder(scenes, DARK, 3, 0, tmp_path)
    assert [(phase.steps, phase.empty_share) for phase, _ in seen] == [(3, 0), (1, 1 / 8)]
    assert seen[0][1] != seen[1][1]
