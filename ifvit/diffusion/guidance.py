"""Classifier-free guidance (arXiv 2207.12598), in the library's convention and the paper's."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ifvit.diffusion.timesteps import network_timesteps

NoisePredictor = Callable[[Tensor, Tensor], Tensor]


def omega_from_guidance_scale(guidance_scale: float) -> float:
    """The paper's omega (arXiv 2403.16530, Eq. 8): (1 + omega) * cond - omega * uncond; 0 = off."""
    return guidance_scale - 1


def guided_noise_predictor(
    model: nn.Module, prompt_embeds: Tensor, null_prompt_embeds: Tensor, guidance_scale: float
) -> NoisePredictor:
    """The guided noise prediction of `model` for fixed prompts, as a function of (latents, timestep).

    Args:
        model: a UViT.
        prompt_embeds: (B, T, X).
        null_prompt_embeds: (T, X), the encoding of "".
        guidance_scale: uncond + guidance_scale * (cond - uncond). At 1.0 only the condition is computed.

    Returns:
        A function of noised latents (B, C, H, W) and a scalar time index 0..999 that gives the noise (B, C, H, W).
    """
    parameter = next(model.parameters())
    is_guided = guidance_scale != 1.0
    conditions = [prompt_embeds, null_prompt_embeds.expand_as(prompt_embeds)] if is_guided else [prompt_embeds]
    encoder_hidden_states = torch.cat(conditions).to(parameter)

    def predict_noise(latents: Tensor, timestep: Tensor) -> Tensor:
        repeated = latents.repeat(len(conditions), 1, 1, 1).to(parameter.dtype)
        timesteps = timestep.to(latents.device).expand(len(repeated))
        noise_pred = model(repeated, network_timesteps(timesteps), encoder_hidden_states).float()
        if not is_guided:
            return noise_pred
        cond, uncond = noise_pred.chunk(2)
        return uncond + guidance_scale * (cond - uncond)

    return predict_noise
