"""The bytes of the frozen models that training keeps on the device, without loading them."""

from pathlib import Path

from ifvit.config.schema import Recipe
from ifvit.encoders.locate import locate

# Float32 weights of what the paper's recipes name; also taken for hub names that are not on this machine.
AUTOENCODER_BYTES = 4 * 83_653_863  # Stable Diffusion v1
TEXT_ENCODER_BYTES = 4 * 123_060_480  # CLIP ViT-L/14
SMALL_BYTES = 4 * 500_000  # random-...-small: less than that
TEXT_BLOCK_PARAMETERS = 85_054_464  # of CLIP ViT-L/14's 12 blocks: what a token passes through


def frozen_bytes(recipe: Recipe, num_parameters: int) -> int:
    """Of the two encoders, and of the model that sample grids are made with, where the recipe has prompts."""
    preview = 4 * num_parameters if recipe.sampling.prompts else 0
    encoders = recipe.encoders
    return (
        preview
        + stored_bytes("encoders.autoencoder", encoders.autoencoder, AUTOENCODER_BYTES)
        + stored_bytes("encoders.text_encoder", encoders.text_encoder, TEXT_ENCODER_BYTES)
    )


def stored_bytes(field: str, name: str, otherwise: int) -> int:
    """Of the weights in the folder that `name` stands for; `otherwise` where there is none on this machine."""
    if name.startswith("random-"):
        return SMALL_BYTES
    folder = Path(locate(field, name).location)
    files = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    return sum(file.stat().st_size for file in files) or otherwise
