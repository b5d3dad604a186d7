"""ifvit/evaluation/frechet.py"""

import numpy as np
import pytest
import torch

from ifvit.evaluation.frechet import METRIC, frechet_distance
from tests.unit.evaluation.stand_in_clip import image_set


def features_with(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count, P) whose own mean and covariance are exactly those."""
    normal = np.random.default_rng(seed).normal(size=(count, len(mean)))
    centred = normal - normal.mean(axis=0)
    white = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_diagonal_gaussians_have_a_closed_form() -> None:
    first_mean, second_mean = np.array([0.0, 1.0, -2.0]), np.array([0.5, 1.0, 1.0])
    first_deviation, second_deviation = np.array([1.0, 2.0, 0.3]), np.array([1.5, 0.1, 0.3])
    first = features_with(first_mean, np.diag(first_deviation**2), 50, seed=0)
    second = features_with(second_mean, np.diag(second_deviation**2), 70, seed=1)
    expected = np.square(first_mean - second_mean).sum() + np.square(first_deviation - second_deviation).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_rotation_changes_nothing_and_order_neither() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(40, 5)) * np.arange(1, 6), random.normal(size=(60, 5)) + 1
    rotation, _ = np.linalg.qr(random.normal(size=(5, 5)))
    expected = frechet_distance(first, second)
    assert expected > 1
    assert frechet_distance(first @ rotation, second @ rotation) == pytest.approx(expected)
    assert frechet_distance(second, first) == pytest.approx(expected)


def test_covariances_that_do_not_commute() -> None:
    """In two dimensions tr (A B)^(1/2) = (tr AB + 2 sqrt(det AB))^(1/2)."""
    first_covariance, second_covariance = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    product = first_covariance @ second_covariance
    trace_of_root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(first_covariance) + np.trace(second_covariance) - 2 * trace_of_root
    first, second = (
        features_with(np.zeros(2), covariance, 30, seed)
        for seed, covariance in enumerate((first_covariance, second_covariance))
    )
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_equal_sets_are_at_distance_zero_also_below_full_rank() -> None:
    features = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_too_few_images_are_remarked() -> None:
    embeds = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    enough, few = image_set(embeds), image_set(embeds[:6])
    assert METRIC.measure(enough, enough).keys() == {"distance", "features", "full_rank"}
    values = METRIC.measure(few, few)
    assert values["full_rank"] is False
    (remark,) = values["remarks"]
    assert remark.startswith("Frechet distance: 6 images do not determine a covariance of width 6")
    assert values["distance"] == pytest.approx(0, abs=1e-6)
