"""The frozen autoencoder: pixels to moments, latents to pixels. The only wrapper of diffusers' AutoencoderKL."""

from typing import Any

import torch
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.encoders.identity import state_digest
from ifvit.encoders.locate import EncoderSource, locate
from ifvit.encoders.random_weights import RANDOM_AUTOENCODER, random_autoencoder_folder

FIELD = "encoders.autoencoder"


class Autoencoder:
    """An AutoencoderKL in float32, without gradients. Shapes: C latent channels, f factor, h = H / f, w = W / f."""

    def __init__(self, model: Any, name: str, is_random: bool) -> None:
        self.model = model
        self.factor: int = 2 ** (len(model.config.block_out_channels) - 1)
        self.latent_channels: int = model.config.latent_channels
        self.identity = {"name": name, "sha256": state_digest(model.state_dict()), "random": is_random}

    @classmethod
    def load(cls, name: str, device: torch.device | str = "cpu") -> "Autoencoder":
        """From a local folder, a hub name, `scenes-autoencoder` or `random-autoencoder-small`.

        Raises UserError naming the recipe's field.
        """
        if name == RANDOM_AUTOENCODER:
            source = EncoderSource(FIELD, str(random_autoencoder_folder()))
        else:
            source = locate(FIELD, name)
        return cls(load_model(source).to(device), name, source.is_random)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to float32 moments (B, 2C, h, w): mean, then logvar.

        The library clamps logvar to [-30, 20].
        """
        distribution = self.model.encode(pixels.to(self.device, torch.float32)).latent_dist
        return torch.cat([distribution.mean, distribution.logvar], dim=1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents (B, C, h, w) to pixels (B, 3, H, W) clamped to [-1, 1]; float32."""
        return self.model.decode(latents.to(self.device, torch.float32)).sample.clamp(-1, 1)


def load_model(source: EncoderSource) -> Any:
    from diffusers import AutoencoderKL

    model, report = source.load(
        "an AutoencoderKL",
        lambda: AutoencoderKL.from_pretrained(
            source.location,
            subfolder=source.subfolder or None,
            torch_dtype=torch.float32,
            use_safetensors=True,  # never unpickle
            output_loading_info=True,
        ),
    )
    # Weights that are absent would be random, without an error.
    if wrong := [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]:
        raise UserError(
            f"{source.field}: the weights in {source.location} are no AutoencoderKL's: "
            f"{len(wrong)} tensors are missing, unexpected or of another shape, such as {wrong[0]}"
        )
    return model.eval().requires_grad_(False)
