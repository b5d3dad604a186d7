"""ifvit/encoders/autoencoder.py"""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from ifvit.config.errors import UserError
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.random_weights import random_autoencoder_folder

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    return Autoencoder.load("random-autoencoder-small")


def test_moments_are_the_library_s_mean_and_logvar(autoencoder: Autoencoder) -> None:
    distribution = AutoencoderKL.from_pretrained(random_autoencoder_folder()).encode(PIXELS).latent_dist
    moments = autoencoder.encode(PIXELS)
    assert moments.shape == (3, 8, 4, 4)
    torch.testing.assert_close(moments, torch.cat([distribution.mean, distribution.logvar], dim=1), rtol=0, atol=0)


def test_logvar_is_clamped(autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    bias = autoencoder.model.quant_conv.bias
    monkeypatch.setattr(bias, "data", bias + torch.tensor([0, 0, 0, 0, 99.0, 99.0, -99.0, -99.0]))
    logvar = autoencoder.encode(PIXELS)[:, 4:]
    assert (logvar.max(), logvar.min()) == (20, -30)


def test_decode_gives_pixels_within_range(autoencoder: Autoencoder) -> None:
    pixels = autoencoder.decode(50 * torch.randn(2, 4, 4, 4))
    assert pixels.shape == (2, 3, 32, 32)
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert not pixels.requires_grad


def test_sizes_and_identity(autoencoder: Autoencoder) -> None:
    assert (autoencoder.factor, autoencoder.latent_channels) == (8, 4)
    assert autoencoder.identity["name"] == "random-autoencoder-small"
    assert autoencoder.identity["random"] is True


def test_identity_is_that_of_the_weights_wherever_they_lie(autoencoder: Autoencoder, tmp_path: Path) -> None:
    moved = shutil.copytree(random_autoencoder_folder(), tmp_path / "moved")
    assert Autoencoder.load(str(moved)).identity["sha256"] == autoencoder.identity["sha256"]
    weights = load_file(moved / "diffusion_pytorch_model.safetensors")
    weights["decoder.conv_out.bias"][0] += 1e-3
    save_file(weights, moved / "diffusion_pytorch_model.safetensors")
    assert Autoencoder.load(str(moved)).identity["sha256"] != autoencoder.identity["sha256"]


def test_a_folder_without_an_autoencoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^encoders\.autoencoder: an AutoencoderKL cannot be loaded from the folder"):
        Autoencoder.load(str(tmp_path))


def test_missing_weights_are_refused_not_invented(tmp_path: Path) -> None:
    folder = shutil.copytree(random_autoencoder_folder(), tmp_path / "partial")
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    del weights["encoder.conv_in.weight"]
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"encoders\.autoencoder.*encoder\.conv_in\.weight"):
        Autoencoder.load(str(folder))


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    folder = shutil.copytree(random_autoencoder_folder(), tmp_path / "pickled")
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=r"^encoders\.autoencoder"):
        Autoencoder.load(str(folder))


@pytest.mark.parametrize(
    "name, message",
    [
        ("CompVis/stable-diffusion-v1-4/vae", "is no local folder, and the hub did not give an AutoencoderKL"),
        ("/nowhere/vae", "is no local folder, no hub name"),
        ("random-clip-small", "is no local folder, no hub name"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^encoders\.autoencoder: '{name}' {message}.*--set encoders\.autoencoder="):
        Autoencoder.load(name)


@pytest.mark.coco
def test_real_weights(test_data: Path) -> None:
    autoencoder = Autoencoder.load(str(test_data / "vae_f8c4"))
    assert (autoencoder.factor, autoencoder.latent_channels, autoencoder.identity["random"]) == (8, 4, False)
