"""The solver on Gaussian data, whose noise prediction and ODE solution are known in closed form.

For x_0 ~ N(0, s^2) the marginal at noise level alpha_bar has variance v = alpha_bar s^2 + 1 - alpha_bar, the exact
noise prediction is sqrt(1 - alpha_bar) x / v, and the probability flow ODE maps x_T to x_T sqrt(v_0 / v_T).
"""

import pytest
import torch
from torch import Tensor

from ifvit.config.schema import DiffusionConfig
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.diffusion.solver import denoise, make_scheduler

DEVIATION = 0.75
SINGLESTEP, MULTISTEP = "dpmsolver++_singlestep_3", "dpmsolver++_multistep_2"


class GaussianPredictor:
    def __init__(self) -> None:
        self.alphas_cumprod = NoiseSchedule(DiffusionConfig()).alphas_cumprod
        self.timesteps: list[int] = []

    def variance(self, timestep: int) -> float:
        alpha_bar = self.alphas_cumprod[timestep].item()
        return alpha_bar * DEVIATION**2 + 1 - alpha_bar

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        self.timesteps.append(int(timestep))
        noise_rate = (1 - self.alphas_cumprod[int(timestep)].item()) ** 0.5
        return noise_rate * latents / self.variance(int(timestep))


def relative_error(solver: str, evaluations: int = 50) -> tuple[float, GaussianPredictor]:
    predictor = GaussianPredictor()
    noise = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solved = denoise(predictor, noise, make_scheduler(DiffusionConfig(), solver), evaluations)
    exact = noise * (predictor.variance(0) / predictor.variance(999)) ** 0.5  # the solver ends at noise level n = 1
    return ((solved - exact).norm() / exact.norm()).item(), predictor


def test_the_papers_solver_is_close_to_the_exact_solution() -> None:
    error, predictor = relative_error(SINGLESTEP)
    assert error < 0.009  # decisions.md has 0.8%
    assert len(predictor.timesteps) == 50


def test_the_other_protocol_is_another_one() -> None:
    error, _ = relative_error(MULTISTEP)
    assert 0.02 < error < 0.03  # decisions.md has 2.4%


def test_time_runs_uniformly_from_the_last_index() -> None:
    _, predictor = relative_error(SINGLESTEP)
    assert predictor.timesteps[0] == 999
    steps = -torch.tensor(predictor.timesteps).diff()
    assert steps.min() >= 19 and steps.max() <= 21


def test_more_evaluations_come_closer() -> None:
    assert relative_error(SINGLESTEP, 250)[0] < relative_error(SINGLESTEP, 50)[0] / 2


@pytest.mark.parametrize("solver", [SINGLESTEP, MULTISTEP])
def test_rows_do_not_influence_each_other(solver: str) -> None:
    noise = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    together = denoise(GaussianPredictor(), noise, make_scheduler(DiffusionConfig(), solver), 10)
    alone = denoise(GaussianPredictor(), noise[1:2], make_scheduler(DiffusionConfig(), solver), 10)
    assert torch.equal(together[1:2], alone)
