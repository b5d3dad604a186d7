"""A whole CLIP of the smallest size, saved as a real one is."""

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from ifvit.encoders.quiet import quiet_transformers
from ifvit.encoders.random_weights import byte_tokenizer_folder

WIDTH = 6  # P
IMAGE_SIZE = 32


def save_tiny_clip(folder: Path) -> Path:
    """Seeded random weights, 24 text positions, the byte tokenizer; returns `folder`."""
    text = CLIPTextConfig(
        vocab_size=514, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=24, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=IMAGE_SIZE,
        patch_size=16,
    )  # fmt: skip
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer.from_pretrained(byte_tokenizer_folder()).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE).save_pretrained(folder)
    return folder
