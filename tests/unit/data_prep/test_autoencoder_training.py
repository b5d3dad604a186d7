"""What the bundled autoencoder sees in training."""

import numpy as np
import pytest

from data_prep.autoencoder_training import BATCH_SIZE, SCENES, WITH_EMPTY_SCENES, Phase, draw_batch


@pytest.mark.parametrize("phase", [SCENES, WITH_EMPTY_SCENES], ids=lambda phase: phase.label)
def test_batches_hold_scenes_and_their_share_of_empty_ones(phase: Phase) -> None:
    scenes = np.full((50, 64, 64, 3), 7, np.uint8)
    scenes[:, 20:40, 20:40, 0] = 255  # a shape: no background is as colorful
    generator = np.random.default_rng(0)
    images = np.concatenate([draw_batch(scenes, phase.empty_share, generator).numpy() for _ in range(400)])
    has_shape = images[:, 0, 30, 30] == 1
    assert images.shape == (400 * BATCH_SIZE, 3, 64, 64) and np.abs(images).max() <= 1
    assert abs((1 - has_shape.mean()) - phase.empty_share) < 0.02
    colorfulness = (images.max(axis=1) - images.min(axis=1)).max(axis=(1, 2))
    assert colorfulness[~has_shape].max(initial=0) < 0.2 < colorfulness[has_shape].min()
    assert (scenes[:, 30, 30, 0] == 255).all()  # the scenes themselves are left as they are
