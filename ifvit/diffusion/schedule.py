"""The discrete noise schedule of latent diffusion ("scaled_linear")."""

import torch
from torch import Tensor

from ifvit.config.schema import DiffusionConfig


class NoiseSchedule:
    """q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I), t = 0..num_train_timesteps - 1 (DDPM, Eq. 4)."""

    def __init__(self, config: DiffusionConfig, device: torch.device | str = "cpu") -> None:
        roots = torch.linspace(
            config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps, dtype=torch.float64
        )
        self.betas = roots**2
        self.alphas_cumprod = torch.cumprod(1 - self.betas, dim=0)  # alpha_bar
        self.num_train_timesteps = config.num_train_timesteps
        self.signal_rates = self.alphas_cumprod.sqrt().float().to(device)
        self.noise_rates = (1 - self.alphas_cumprod).sqrt().float().to(device)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noised latents (B, C, H, W) at `timesteps` (B,), 0..num_train_timesteps - 1."""
        signal_rate = self.signal_rates[timesteps][:, None, None, None]
        noise_rate = self.noise_rates[timesteps][:, None, None, None]
        return signal_rate * latents + noise_rate * noise
