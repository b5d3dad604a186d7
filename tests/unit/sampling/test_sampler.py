"""Sampling: an image depends on its prompt, the seed and its number, and on nothing else."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ifvit.config.schema import DiffusionConfig, ModelConfig, SamplingConfig
from ifvit.model.uvit import UViT
from ifvit.sampling.sampler import Sampler, initial_noise, uint8_images

SHAPE = ModelConfig(
    sample_size=4, hidden_size=32, num_attention_heads=4, depth=2, fusion={"schedule": "early"},
    text_hidden_size=6, num_text_tokens=3,
)  # fmt: skip
PROMPTS = ["a cat", "two dogs", "three buses", "four apples", "five sheep"]


class RepeatPixels:
    """A decoder that shows the first three latent channels."""

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :3].clamp(-1, 1)


def encode_prompts(prompts: Sequence[str]) -> Tensor:
    generators = [torch.Generator().manual_seed(len(prompt)) for prompt in prompts]
    return torch.stack([torch.randn(3, 6, generator=generator) for generator in generators])


@pytest.fixture(scope="module")
def model() -> UViT:
    torch.manual_seed(0)
    model = UViT(SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def sampler(model: UViT, **sampling: object) -> Sampler:
    config = SamplingConfig.model_validate({"num_inference_steps": 8, **sampling})
    return Sampler(
        model, RepeatPixels(), encode_prompts, torch.zeros(3, 6), 0.5, SHAPE, DiffusionConfig(), config,
        torch.device("cpu"),
    )  # fmt: skip


def test_batch_size_does_not_change_an_image(model: UViT) -> None:
    together = sampler(model, batch_size=5).sample(PROMPTS, seed=0)
    apart = sampler(model, batch_size=2).sample(PROMPTS, seed=0)
    alone = sampler(model, batch_size=1).sample(PROMPTS[3:4], seed=0)
    assert np.abs(together.astype(int) - apart).max() <= 1
    assert np.abs(together[3].astype(int) - alone[0]).max() <= 1


def test_initial_noise_is_bit_equal_in_any_batch() -> None:
    size = (4, 4, 4)
    together = initial_noise(PROMPTS, 3, [0] * 5, size)
    assert torch.equal(together[2], initial_noise(PROMPTS[2:3], 3, [0], size)[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0], initial_noise(PROMPTS[:1], 4, [0], size)[0])
    assert not torch.equal(together[0], initial_noise(PROMPTS[:1], 3, [1], size)[0])
    assert together.std().item() == pytest.approx(1, abs=0.2)


def test_prompt_seed_and_guidance_matter(model: UViT) -> None:
    base = sampler(model).sample(PROMPTS[:1], seed=0)
    assert (base != sampler(model).sample(PROMPTS[:1], seed=1)).any()
    assert (base != sampler(model).sample(PROMPTS[1:2], seed=0)).any()
    assert (base != sampler(model, guidance_scale=1.0).sample(PROMPTS[:1], seed=0)).any()


def test_latents_are_unscaled_before_decoding(model: UViT) -> None:
    half, whole = sampler(model), sampler(model)
    whole.scaling_factor = 1.0
    latents = half.sample_latents(PROMPTS[:1], 0, [0])
    torch.testing.assert_close(latents, 2 * whole.sample_latents(PROMPTS[:1], 0, [0]))


def test_training_mode_is_put_back(model: UViT) -> None:
    model.train()
    sampler(model).sample(PROMPTS[:1], seed=0)
    assert model.training


def test_pixels_round_to_nearest() -> None:
    pixels = torch.tensor([-1.0, 0.0, 1.0, 1.5]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert uint8_images(pixels)[0, :, :, 0].flatten().tolist() == [0, 128, 255, 255]
