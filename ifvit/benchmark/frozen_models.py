"""The bytes of the frozen models that training keeps on the device, without loading them."""

import json
import math
import re
from pathlib import Path

from ifvit.config.schema import Recipe
from ifvit.encoders.locate import locate

# Float32 weights of what the paper's recipes name; also taken for hub names that are not on this machine.
FLOAT32 = 4
AUTOENCODER_BYTES = FLOAT32 * 83_653_863  # Stable Diffusion v1
TEXT_ENCODER_BYTES = FLOAT32 * 123_060_480  # CLIP ViT-L/14
SMALL_BYTES = FLOAT32 * 500_000  # random-...-small: less than that
TEXT_BLOCK_PARAMETERS = 85_054_464  # of CLIP ViT-L/14's 12 blocks: what a token passes through
IMAGE_HALF = ("vision_model.", "visual_projection.")
OTHER_VARIANT = re.compile(r"\.(fp16|non_ema)\.")  # of the same weights: not loaded


def frozen_bytes(recipe: Recipe, num_parameters: int) -> int:
    """Of the two encoders, and of the model that sample grids are made with, where the recipe has prompts."""
    preview = FLOAT32 * num_parameters if recipe.sampling.prompts else 0
    encoders = recipe.encoders
    return (
        preview
        + stored_bytes("encoders.autoencoder", encoders.autoencoder, AUTOENCODER_BYTES)
        + stored_bytes("encoders.text_encoder", encoders.text_encoder, TEXT_ENCODER_BYTES)
    )


def stored_bytes(field: str, name: str, otherwise: int) -> int:
    """Of the weights in the folder that `name` stands for, in float32; `otherwise` where it is not on this machine."""
    if name.startswith("random-"):
        return SMALL_BYTES
    folder = Path(locate(field, name).location)
    files = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    return FLOAT32 * sum(num_values(file) for file in files if not OTHER_VARIANT.search(file.name)) or otherwise


def num_values(file: Path) -> int:
    """In the tensors of a safetensors file, by its head, but for a CLIP's image half, which is not loaded."""
    with file.open("rb") as content:
        head = json.loads(content.read(int.from_bytes(content.read(8), "little")))
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in head.items()
        if name != "__metadata__" and not name.startswith(IMAGE_HALF)
    )
