"""Where a training step makes the host wait for the GPU: our files must not, DeepSpeed's are only reported."""

import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import ifvit
from ifvit.benchmark.checked_cells import cell_recipe
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size

PACKAGE = f"{Path(ifvit.__file__).parent}/"


def check_host_syncs(device: torch.device, steps: int) -> dict[str, Any]:
    """How often each line of Python waited in `steps` steps, as torch's own detector has it; none on a CPU."""
    recipe = with_batch_size(cell_recipe("cross_intermediate", device), 4)
    training = SyntheticTraining(recipe, device, deepspeed_engine)
    training.run_window(2)
    counts: Counter[str] = Counter()
    if device.type == "cuda":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                training.train_steps(steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.update(f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
    ours = our_lines(counts)
    failure = f"waits for the GPU in a step: {', '.join(ours)}" if ours else None
    return {"failure": failure, "steps": steps, "lines": dict(counts)}


def our_lines(lines: Iterable[str]) -> list[str]:
    """Those of this package's files; its environment may lie in a folder of the same name."""
    return sorted(line for line in lines if line.startswith(PACKAGE))
