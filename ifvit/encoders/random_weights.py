"""Small encoders with seeded random weights, for machines without real ones: built once, then loaded like any other.

They lie in ${XDG_CACHE_HOME:-~/.cache}/ifvit/encoders, each beside a file RANDOM_WEIGHTS that makes outputs say so.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from ifvit.encoders.locate import RANDOM_MARK
from ifvit.encoders.untrained import LATENT_CHANNELS, save_tokenizer, untrained_autoencoder, untrained_text_encoder

RANDOM_AUTOENCODER = "random-autoencoder-small"
RANDOM_TEXT_ENCODER = "random-clip-small"
MAX_TEXT_TOKENS = 77
SEED = 0


def random_autoencoder_folder() -> Path:
    """Folder with an AutoencoderKL: factor 8, 4 latent channels, 79 thousand parameters."""

    def save(folder: Path) -> None:
        autoencoder = untrained_autoencoder((8, 16, 16, 16), norm_num_groups=4, image_size=32)
        with torch.no_grad():
            # Untrained, logvar is about 0, far above the mean's variance: sampled latents would hold no image.
            autoencoder.quant_conv.bias[LATENT_CHANNELS:] -= 8
        autoencoder.save_pretrained(folder)

    return built_once("random-autoencoder-small-1", save)


def random_text_encoder_folder(vocabulary_size: int, start_token_id: int, end_token_id: int) -> Path:
    """Folder with a CLIPTextModel for a tokenizer of that size: hidden size 64, 2 layers, 77 positions."""

    def save(folder: Path) -> None:
        untrained_text_encoder(
            vocab_size=vocabulary_size,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TEXT_TOKENS,
            bos_token_id=start_token_id,
            eos_token_id=end_token_id,
            pad_token_id=end_token_id,
        ).save_pretrained(folder)

    return built_once(f"random-clip-small-1-{vocabulary_size}-{start_token_id}-{end_token_id}", save)


def byte_tokenizer_folder() -> Path:
    """Folder with a CLIPTokenizer without merges: one token per byte, another where it ends a word (514 in all)."""

    return built_once("byte-tokenizer-1", lambda folder: save_tokenizer(folder, [], MAX_TEXT_TOKENS))


def built_once(name: str, save: Callable[[Path], None]) -> Path:
    """The cache folder `name`, filled by `save` with a fixed seed if it is not there. Several processes may race."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ifvit" / "encoders"
    folder = root / name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as temporary:
        built = Path(temporary) / name
        built.mkdir()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            save(built)
        (built / RANDOM_MARK).write_text(f"Seeded random weights (seed {SEED}), not trained.\n", encoding="utf-8")
        try:
            built.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster and made the same
                raise
            shutil.rmtree(built)
    return folder
