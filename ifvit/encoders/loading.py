"""The recipe's frozen encoders, and what every output must say of them."""

from dataclasses import dataclass

import torch

from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.text_encoder import TextEncoder


@dataclass(frozen=True)
class Encoders:
    """Both encoders on one device."""

    autoencoder: Autoencoder
    text_encoder: TextEncoder

    @property
    def notice(self) -> str:
        """What an output made with them must say; empty for trained encoders."""
        random = [
            name
            for name, identity in (
                ("autoencoder", self.autoencoder.identity),
                ("text encoder", self.text_encoder.identity),
            )
            if identity["random"]
        ]
        return f"Random weights in the {' and the '.join(random)}: a check of the machinery." if random else ""


def load_encoders(recipe: Recipe, device: torch.device) -> Encoders:
    """The encoders on `device`. Raises UserError when one cannot be loaded or does not fit the recipe's model."""
    model = recipe.model
    autoencoder = Autoencoder.load(recipe.encoders.autoencoder, device)
    if autoencoder.latent_channels != model.in_channels:
        raise UserError(
            f"model.in_channels: is {model.in_channels}, the autoencoder {recipe.encoders.autoencoder} "
            f"has {autoencoder.latent_channels} latent channels"
        )
    text_encoder = TextEncoder.load(
        recipe.encoders.text_encoder, recipe.encoders.tokenizer, model.num_text_tokens, device
    )
    if text_encoder.hidden_size != model.text_hidden_size:
        raise UserError(
            f"model.text_hidden_size: is {model.text_hidden_size}, the text encoder {recipe.encoders.text_encoder} "
            f"gives {text_encoder.hidden_size}"
        )
    return Encoders(autoencoder, text_encoder)
