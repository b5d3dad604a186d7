"""An autoencoder that is not the one that shards were made with."""

import shutil
from pathlib import Path

from ifvit.encoders.random_weights import random_autoencoder_folder


def other_autoencoder(tmp_path: Path) -> str:
    """The small random one with other weights, in a folder below `tmp_path`."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(random_autoencoder_folder(), tmp_path / "other_autoencoder")
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    weights["encoder.conv_in.weight"] += 0.01
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    return str(folder)
