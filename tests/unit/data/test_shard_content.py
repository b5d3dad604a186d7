"""ifvit/data/shard_content.py"""

import numpy as np
import pytest

from ifvit.data.shard_content import latent_sums, measured_scaling_factor


def test_the_measured_scale_brings_sampled_latents_to_unit_variance() -> None:
    random = np.random.default_rng(0)
    mean = random.normal(0.7, 1.5, (50, 4, 16, 16))
    logvar = random.uniform(-3, 1, (50, 4, 16, 16))
    moments = np.concatenate([mean, logvar], axis=1).astype(np.float16)
    sums = np.sum([latent_sums(sample) for sample in moments], axis=0)
    latents = mean + np.exp(logvar / 2) * random.normal(size=mean.shape)
    assert measured_scaling_factor(sums) * latents.std() == pytest.approx(1, abs=0.01)
    assert sums[0] == mean.size
