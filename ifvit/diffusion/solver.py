"""From noise to latents: diffusers' DPM-Solver++ schedulers, set up as the recipe names them."""

from typing import Any

import torch
from torch import Tensor

from ifvit.config.schema import DiffusionConfig
from ifvit.diffusion.guidance import NoisePredictor


def make_scheduler(diffusion: DiffusionConfig, solver: str) -> Any:
    """The scheduler called `solver`, on our noise schedule.

    `dpmsolver++_singlestep_3` is the paper's protocol: order 3, uniform in time, ending at noise level n = 1
    (arXiv 2211.01095, algorithm 2). `dpmsolver++_multistep_2` is the library's usual choice, and another protocol.
    """
    from diffusers import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler

    betas = {
        "num_train_timesteps": diffusion.num_train_timesteps,
        "beta_start": diffusion.beta_start,
        "beta_end": diffusion.beta_end,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "algorithm_type": "dpmsolver++",
        "lower_order_final": True,
        "final_sigmas_type": "sigma_min",
    }
    if solver == "dpmsolver++_singlestep_3":
        return DPMSolverSinglestepScheduler(solver_order=3, **betas)
    assert solver == "dpmsolver++_multistep_2", solver
    return DPMSolverMultistepScheduler(solver_order=2, **betas)


@torch.no_grad()
def denoise(predict_noise: NoisePredictor, noise: Tensor, scheduler: Any, num_inference_steps: int) -> Tensor:
    """Latents (B, C, H, W) from initial `noise` of that shape, in `num_inference_steps` evaluations of the network."""
    scheduler.set_timesteps(num_inference_steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        latents = scheduler.step(predict_noise(latents, timestep), timestep, latents).prev_sample
    return latents
