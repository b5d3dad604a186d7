"""The objective: what is drawn, what the network is asked, what the loss is."""

import pytest
import torch
from torch import Tensor, nn

from ifvit.config.schema import DiffusionConfig
from ifvit.data.batch import Batch
from ifvit.diffusion.objective import Draws, Objective, latents_from_moments
from ifvit.diffusion.schedule import NoiseSchedule

ROWS, TOKENS, WIDTH = 8, 3, 5
NULL = torch.full((TOKENS, WIDTH), 7.0)


class Spy(nn.Module):
    """Keeps its inputs and predicts nothing."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, latents: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        self.seen = latents, timesteps, encoder_hidden_states
        return torch.zeros_like(latents)


def batch_of(rows: int = ROWS) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        moments=torch.randn(rows, 8, 4, 4, generator=generator),
        prompt_embeds=torch.randn(rows, TOKENS, WIDTH, generator=generator),
        input_ids=None,
        is_dropped=torch.arange(rows) == 1,
        sample_ids=torch.arange(rows),
        global_rows=torch.arange(rows),
    )


def objective(scaling_factor: float = 0.2301, seed: int = 1) -> Objective:
    schedule = NoiseSchedule(DiffusionConfig())
    return Objective(schedule, scaling_factor, NULL, seed=seed, global_batch_size=ROWS)


def test_draws_do_not_depend_on_how_rows_are_split_over_ranks() -> None:
    batch = batch_of()
    whole = objective().draw(5, batch)
    for first_row in (0, 4):
        part = objective().draw(5, batch.rows(first_row, first_row + 4))
        for name in ("timesteps", "noise", "latent_noise"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[first_row : first_row + 4]), name


def test_draws_change_with_the_step_and_are_repeatable() -> None:
    batch = batch_of()
    first, again, next_step = (objective().draw(step, batch) for step in (5, 5, 6))
    assert torch.equal(first.noise, again.noise)
    assert not torch.equal(first.noise, next_step.noise)
    assert not torch.equal(first.noise, objective(seed=2).draw(5, batch).noise)


def test_noises_are_independent_over_rows_steps_and_purposes() -> None:
    """Any two of them have a correlation of 0 up to 1 / sqrt(4 * 4 * 4 * 2000)."""
    batch = batch_of(rows=ROWS)
    draws = [objective().draw(step, batch) for step in range(250)]
    noise = torch.stack([each.noise for each in draws]).double().flatten(2)  # (steps, rows, values)
    latent_noise = torch.stack([each.latent_noise for each in draws]).double().flatten(2)
    pairs = [(noise, latent_noise.roll(shift, dims=1)) for shift in range(ROWS)]
    pairs += [(noise, latent_noise.roll(1, dims=0)), (noise, noise.roll(1, dims=0)), (noise, noise.roll(1, dims=1))]
    assert all(abs((one * other).mean().item()) < 0.015 for one, other in pairs)
    assert noise.std().item() == pytest.approx(1, abs=0.01)


def test_timesteps_are_uniform_from_0_to_999() -> None:
    timesteps = torch.cat([objective().draw(step, batch_of()).timesteps for step in range(4000)])
    assert (timesteps.min().item(), timesteps.max().item()) == (0, 999)
    counts = torch.bincount(timesteps // 100, minlength=10)
    assert counts.float().div(3200).sub(1).abs().max().item() < 0.1


def test_network_gets_noised_scaled_latents_time_plus_one_and_the_null_condition() -> None:
    batch, spy = batch_of(), Spy()
    draws = objective().draw(0, batch)
    loss = objective().loss(spy, batch, draws)
    noisy_latents, timesteps, prompt_embeds = spy.seen
    mean, logvar = batch.moments.chunk(2, dim=1)
    latents = 0.2301 * (mean + (logvar / 2).exp() * draws.latent_noise)
    alpha_bar = NoiseSchedule(DiffusionConfig()).alphas_cumprod[draws.timesteps].float()[:, None, None, None]
    torch.testing.assert_close(noisy_latents, alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * draws.noise)
    assert torch.equal(timesteps, draws.timesteps + 1)
    assert torch.equal(prompt_embeds[1], NULL)  # the encoding of "", not zeros
    assert torch.equal(prompt_embeds[0], batch.prompt_embeds[0])
    torch.testing.assert_close(loss, draws.noise.square().mean())


def test_losses_of_samples_are_each_rows_own_and_have_no_graph() -> None:
    batch, spy = batch_of(), Spy()
    draws = objective().draw(0, batch)
    losses = objective().losses(spy, batch, draws)
    torch.testing.assert_close(losses.of_samples, draws.noise.square().mean(dim=(1, 2, 3)))
    assert torch.equal(losses.mean, objective().loss(spy, batch, draws))
    assert not losses.of_samples.requires_grad


def test_loss_is_float32_also_for_a_bf16_model() -> None:
    batch, spy = batch_of(), Spy(torch.bfloat16)
    loss = objective().loss(spy, batch, objective().draw(0, batch))
    assert loss.dtype == torch.float32
    assert spy.seen[0].dtype == spy.seen[2].dtype == torch.bfloat16


def test_latents_are_drawn_from_their_moments() -> None:
    moments = torch.tensor([2.0, 2 * torch.log(torch.tensor(3.0)).item()]).view(1, 2, 1, 1)
    noise = torch.tensor([0.5]).view(1, 1, 1, 1)
    assert latents_from_moments(moments, noise).item() == pytest.approx(2 + 3 * 0.5)


def test_rows_of_draws() -> None:
    draws = Draws(torch.arange(4), torch.arange(4.0), torch.arange(4.0) * 2)
    part = draws.rows(1, 3)
    assert part.timesteps.tolist() == [1, 2]
    assert part.latent_noise.tolist() == [2.0, 4.0]
