"""New encoders before any training, and the files that stand beside their weights: for random and for bundled ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ifvit.encoders.quiet import quiet_transformers

START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
LATENT_CHANNELS = 4


def untrained_autoencoder(channels: Sequence[int], norm_num_groups: int, image_size: int) -> Any:
    """An AutoencoderKL with one halving fewer than `channels`, 4 latent channels and no attention."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=tuple(channels),
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=norm_num_groups,
        sample_size=image_size,
        mid_block_add_attention=False,
    )


def untrained_text_encoder(**config: Any) -> Any:
    """A CLIPTextModel of that CLIPTextConfig."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with quiet_transformers():
        return CLIPTextModel(CLIPTextConfig(**config))


def untrained_clip(text: dict[str, Any], vision: dict[str, Any], projection_dim: int) -> Any:
    """A CLIPModel of those configurations of its halves."""
    from transformers import CLIPConfig, CLIPModel

    with quiet_transformers():
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection_dim))


def save_tokenizer(folder: Path, merges: Sequence[tuple[str, str]], num_text_tokens: int) -> None:
    """A CLIPTokenizer that spells any text: a token per byte, another where it ends a word, and one per merge."""
    from transformers import CLIPTokenizer

    characters = byte_characters()
    tokens = [*characters, *(character + WORD_END for character in characters)]
    tokens += ["".join(pair) for pair in merges]
    tokens += [START_TOKEN, END_TOKEN]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=num_text_tokens).save_pretrained(folder)


def byte_characters() -> list[str]:
    """For each byte the printable character that byte-level BPE writes for it (GPT-2's table, which CLIP uses)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [shown[byte] for byte in range(256)]


def save_image_processor(folder: Path, image_size: int, mean: float, deviation: float) -> None:
    """A CLIP image processor: resize to a square, then (value / 255 - mean) / deviation in every channel."""
    from transformers import CLIPImageProcessorPil

    size = {"height": image_size, "width": image_size}
    CLIPImageProcessorPil(
        size=size, crop_size=size, do_center_crop=False, image_mean=[mean] * 3, image_std=[deviation] * 3
    ).save_pretrained(folder)
