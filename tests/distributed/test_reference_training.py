"""Our objective, optimiser, warm-up and EMA against twelve steps of the reference, in float64 on its own code."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ifvit.model.reference_weights import import_state_dict
from tests.distributed.rank_pool import RankPool
from tests.distributed.reference_training import train_on_reference


@pytest.mark.coco
@pytest.mark.parametrize(
    "world_size, num_micro_batches, zero_stage",
    [(1, 1, 0), (2, 4, 0), (1, 4, 1), (2, 1, 1), (1, 1, 2), (2, 4, 2), (1, 4, 3), (2, 1, 3)],
)
@pytest.mark.parametrize("cell", ["concat_early", "cross_intermediate"])
def test_twelve_steps_of_the_reference(
    pools: dict[int, RankPool], fixtures: Path, cell: str, world_size: int, num_micro_batches: int, zero_stage: int
) -> None:
    folder = fixtures / cell
    expected = json.loads((folder / "train/expected.json").read_text())
    outcome, *_ = pools[world_size].run(
        train_on_reference, folder=folder, num_micro_batches=num_micro_batches, zero_stage=zero_stage
    )
    losses, learning_rates, grad_norms = zip(*outcome["results"], strict=True)
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)
    np.testing.assert_allclose(learning_rates, expected["learning_rates"], rtol=1e-12)
    np.testing.assert_allclose(grad_norms, expected["grad_norms"], rtol=1e-4)
    for name in ("weights", "ema"):
        file = folder / "train" / {"weights": "nnet_after.safetensors", "ema": "ema_after.safetensors"}[name]
        _, reference = import_state_dict(load_file(file), folder / "config.json", str(file))
        assert outcome[name].keys() == reference.keys()
        for key, tensor in reference.items():
            np.testing.assert_allclose(outcome[name][key], tensor, rtol=0, atol=2e-5, err_msg=f"{name} {key}")
