"""Frechet distance of CLIP's image embeddings: how far a set of images is from the real ones, prompts left aside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifvit.evaluation.metric import Column, ImageSet, Metric


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Distance between Gaussian fits of two sets of features, (N, P) and (M, P); N, M >= 2.

    |mean_1 - mean_2|^2 + tr(cov_1 + cov_2 - 2 (cov_1 cov_2)^(1/2)) (arXiv 1706.08500, Eq. 6), in float64. It falls
    with growing N, so it is compared at equal N only; with N <= P the fits do not have full rank.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    first_cov, second_cov = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second))
    # The eigenvalues of cov_1 cov_2 are those of root_1 cov_2 root_1, which is symmetric; rounding may make zeros
    # slightly negative.
    values, vectors = np.linalg.eigh(first_cov)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    trace_of_root = np.sqrt(np.linalg.eigvalsh(root @ second_cov @ root).clip(0)).sum()
    distance = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    distance += np.trace(first_cov) + np.trace(second_cov) - 2 * trace_of_root
    return float(max(distance, 0.0))


def measure(images: ImageSet, real: ImageSet) -> dict[str, Any]:
    """The distance of `images` from `real`, with a remark where there are too few of them for fits of full rank."""
    ours, theirs = images.image_embeds.numpy(), real.image_embeds.numpy()
    num_images, width = min(len(ours), len(theirs)), ours.shape[1]
    values: dict[str, Any] = {
        "distance": frechet_distance(ours, theirs),
        "features": f"CLIP image embeddings before normalisation, width {width}",
        "full_rank": num_images > width,
    }
    if not values["full_rank"]:
        values["remarks"] = [
            f"Frechet distance: {num_images} images do not determine a covariance of width {width}; "
            f"more than {width} would"
        ]
    return values


METRIC = Metric(measure, (Column("distance", "Frechet distance", decimals=2, more_is_better=False),))
