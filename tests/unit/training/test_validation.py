"""What is drawn for validation samples depends on the seed and their places alone."""

import numpy as np
import torch

from ifvit.training.validation import ValidationDraws

CPU = torch.device("cpu")


def draws_of(places: list[int], seed: int = 1) -> ValidationDraws:
    return ValidationDraws(np.array(places), (4, 2, 2), num_train_timesteps=1000, seed=seed)


def test_timesteps_are_stratified_over_the_whole_schedule() -> None:
    timesteps = draws_of(list(range(50))).of(np.arange(50), CPU).timesteps
    assert (timesteps // 20).sort().values.tolist() == list(range(50))
    assert timesteps.tolist() != sorted(timesteps.tolist())  # not in the order of the split
    assert len(set((timesteps % 20).tolist())) > 10


def test_rows_do_not_depend_on_which_others_are_drawn_with_them() -> None:
    draws = draws_of(list(range(8)))
    whole, part = draws.of(np.arange(8), CPU), draws.of(np.array([5, 2]), CPU)
    for name in ("timesteps", "noise", "latent_noise"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[[5, 2]]), name


def test_noise_is_a_function_of_place_and_seed() -> None:
    noise = draws_of([0, 10, 20]).of(np.array([1]), CPU).noise
    assert torch.equal(noise, draws_of([5, 6, 10]).of(np.array([2]), CPU).noise)
    assert not torch.equal(noise, draws_of([0, 10, 20], seed=2).of(np.array([1]), CPU).noise)
    assert not torch.equal(noise, draws_of([0, 10, 20]).of(np.array([2]), CPU).noise)


def test_the_two_noises_are_standard_normal_and_unrelated() -> None:
    draws = draws_of(list(range(500))).of(np.arange(500), CPU)
    for noise in (draws.noise, draws.latent_noise):
        assert abs(noise.mean().item()) < 0.05
        assert abs(noise.std().item() - 1) < 0.05
    assert abs((draws.noise * draws.latent_noise).mean().item()) < 0.05
