"""The noise schedule against the closed form and against diffusers' own schedulers."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ifvit.config.schema import DiffusionConfig
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.diffusion.timesteps import network_timesteps

CONFIG = DiffusionConfig()


def test_betas_are_the_square_of_a_linear_ramp_of_roots() -> None:
    betas = np.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=np.float64) ** 2
    schedule = NoiseSchedule(CONFIG)
    np.testing.assert_allclose(schedule.betas.numpy(), betas, rtol=1e-12)
    np.testing.assert_allclose(schedule.alphas_cumprod.numpy(), np.cumprod(1 - betas), rtol=1e-12)


def test_add_noise_against_diffusers_own() -> None:
    scheduler = DDPMScheduler(1000, beta_start=0.00085, beta_end=0.0120, beta_schedule="scaled_linear")
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([0, 1, 500, 999])
    ours = NoiseSchedule(CONFIG).add_noise(latents, noise, timesteps)
    torch.testing.assert_close(ours, scheduler.add_noise(latents, noise, timesteps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("timestep", [0, 999])
def test_variance_is_preserved(timestep: int) -> None:
    schedule = NoiseSchedule(CONFIG)
    total = schedule.signal_rates[timestep] ** 2 + schedule.noise_rates[timestep] ** 2
    assert total.item() == pytest.approx(1, abs=1e-6)


def test_network_sees_one_to_a_thousand() -> None:
    assert network_timesteps(torch.tensor([0, 999])).tolist() == [1, 1000]
