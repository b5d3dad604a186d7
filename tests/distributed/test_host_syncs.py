"""Between two logged steps neither we nor DeepSpeed read the values of a tensor, but those of the step before."""

from pathlib import Path

import pytest

from tests.distributed.host_syncs import counted_run
from tests.training_fixtures import Train

# The first reads a tensor that no device computes, a count of the ranks. The second waits for the step before, so that
# the host is at most one step ahead, while the device has this step's forward and backward passes to do.
ONCE_IN_EACH_STEP = {"ifvit/training/stopping.py:agree", "ifvit/training/delayed_values.py:take"}


@pytest.mark.parametrize("zero_stage, precision", [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")])
def test_no_value_is_read_in_twenty_steps(train: Train, tmp_path: Path, zero_stage: int, precision: str) -> None:
    overrides = [f"runtime.zero_stage={zero_stage}", f"train.precision={precision}", "train.micro_batch_size=2"]
    overrides += ["train.max_grad_norm=1.0", "train.activation_checkpointing=0.5"]
    counted, *_ = train(2, tmp_path, *overrides, function=counted_run)
    assert counted == dict.fromkeys(ONCE_IN_EACH_STEP, 20)  # were these not seen, nothing would be
