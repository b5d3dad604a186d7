"""Guidance in both conventions, and what the network is asked for it."""

import pytest
import torch
from torch import Tensor, nn

from ifvit.diffusion.guidance import guided_noise_predictor, omega_from_guidance_scale


class TextMean(nn.Module):
    """Predicts its condition's mean, and counts its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.rows: list[int] = []
        self.timesteps: list[list[int]] = []

    def forward(self, latents: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        self.rows.append(len(latents))
        self.timesteps.append(timesteps.tolist())
        return encoder_hidden_states.mean(dim=(1, 2))[:, None, None, None].expand_as(latents)


PROMPTS = torch.stack([torch.full((3, 5), 2.0), torch.full((3, 5), 4.0)])
NULL = torch.full((3, 5), 1.0)


def guided(guidance_scale: float) -> tuple[Tensor, TextMean]:
    model = TextMean()
    predict_noise = guided_noise_predictor(model, PROMPTS, NULL, guidance_scale)
    return predict_noise(torch.zeros(2, 1, 1, 1), torch.tensor(999)).flatten(), model


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0, 4.0])
def test_library_scale_and_the_papers_omega_are_one_formula(guidance_scale: float) -> None:
    noise, _ = guided(guidance_scale)
    omega = omega_from_guidance_scale(guidance_scale)
    cond, uncond = torch.tensor([2.0, 4.0]), torch.tensor([1.0, 1.0])
    torch.testing.assert_close(noise, (1 + omega) * cond - omega * uncond)  # arXiv 2403.16530, Eq. 8


def test_conventions_are_one_apart() -> None:
    assert omega_from_guidance_scale(4.0) == 3.0  # the paper's "sampling CFG scale 3.0"
    assert omega_from_guidance_scale(2.0) == 1.0  # its "eval CFG scale 1.0"


def test_without_guidance_only_the_condition_is_computed() -> None:
    assert guided(1.0)[1].rows == [2]
    assert guided(4.0)[1].rows == [4]


def test_network_sees_the_index_plus_one() -> None:
    assert guided(4.0)[1].timesteps == [[1000] * 4]
