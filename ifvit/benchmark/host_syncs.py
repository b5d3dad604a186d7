"""Where a training step makes the host wait for the GPU: our files must not, DeepSpeed's are only reported."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import ifvit
from ifvit.benchmark.checked_cells import cell_recipe
from ifvit.benchmark.hook_cost import DuringSteps
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.run_writer import RunWriter
from ifvit.training.bad_steps_hook import BadStepsHook
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.meter import Meter
from ifvit.training.metrics import MetricsHook
from ifvit.training.timestep_losses import TimestepLosses
from ifvit.training.weight_norms import WeightNorms

PACKAGE = f"{Path(ifvit.__file__).parent}/"
# All that can be switched on in a step; none of the steps is logged.
WATCHED = ["train.max_grad_norm=1.0", "train.bad_steps.spike_threshold=100.0", "tracking.log_every_steps=1000000"]
WARM_UP_STEPS = 2


def check_host_syncs(device: torch.device, steps: int) -> dict[str, Any]:
    """How often each line of Python waited in `steps` watched steps, by torch's own detector; none on a CPU."""
    recipe = with_batch_size(cell_recipe("cross_intermediate", device, *WATCHED), 4)
    training = SyntheticTraining(recipe, device, deepspeed_engine)
    engine = training.engine
    assert isinstance(engine, DeepSpeedEngine)
    nowhere = Path(os.devnull)
    bad_steps = BadStepsHook(recipe.train.bad_steps, Ranks(), nowhere, RunWriter(nowhere))
    meters: list[Meter] = [
        TimestepLosses(recipe.diffusion.num_train_timesteps, Ranks(), device),
        WeightNorms(engine.fragments, engine.is_sharded, recipe),
    ]
    hooks = [DuringSteps(bad_steps), DuringSteps(MetricsHook(recipe, Ranks(), meters, log=None, progress=None))]
    training.train_steps(WARM_UP_STEPS, hooks, bad_steps.must_skip)
    counts: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            training.train_steps(steps, hooks, bad_steps.must_skip)
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    counts.update(f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
    ours = our_lines(counts)
    failure = f"waits for the GPU in a step: {', '.join(ours)}" if ours else None
    return {"failure": failure, "steps": steps, "lines": dict(counts)}


def our_lines(lines: Iterable[str]) -> list[str]:
    """Those of this package's files; its environment may lie in a folder of the same name."""
    return sorted(line for line in lines if line.startswith(PACKAGE))
