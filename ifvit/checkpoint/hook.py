"""Saves the training state every so many steps, and when training ends."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from ifvit.checkpoint.commit import Contents
from ifvit.checkpoint.host_buffer import HostBuffer
from ifvit.checkpoint.layout import WEIGHTS, ema_kind
from ifvit.checkpoint.manifest import Progress, recipe_sha256
from ifvit.checkpoint.saver import CheckpointSaver
from ifvit.checkpoint.share import own_pieces
from ifvit.config.schema import Recipe
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.late_ranks import LONG_PHASE_PATIENCE
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS, parameter_shapes
from ifvit.training.state import StepResult, TrainState


class CheckpointHook:
    """Writes `checkpoints/step-...` every `checkpoint.every_steps` steps, and at a stop and the end. Collective.

    Args:
        settle: makes `state` know of all its bad steps, and says whether the newest step was a good one. A state among
            bad steps is saved only at the end: a rollback must not lead there.
        took: is told how many seconds the last save went on that has ended, most of them beside training.
    """

    def __init__(
        self,
        checkpoints: Path,
        recipe: Recipe,
        engine: DeepSpeedEngine,
        ema: Ema,
        ranks: Ranks,
        settle: Callable[[TrainState], bool],
        took: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.recipe = recipe
        self.engine = engine
        self.ema = ema
        self.settle = settle
        self.took = took
        kinds = (WEIGHTS, *MOMENTS, *(ema_kind(decay) for decay in ema.averages))
        contents = Contents(
            shapes={name: tuple(shape) for name, shape in parameter_shapes(engine.module).items()},
            kinds=kinds,
            zero_stage=recipe.runtime.zero_stage,
            model=recipe.model.model_dump(mode="json"),
            recipe_sha256=recipe_sha256(recipe),
        )
        pieces = own_pieces(engine.fragments, ranks, is_sharded=engine.is_sharded)
        device = next(engine.module.parameters()).device
        buffer = HostBuffer(kinds, pieces, device)
        # Half of the time that the watchdog gives the phase: what a save waits for is told before the job is ended.
        patience_seconds = LONG_PHASE_PATIENCE / 2 * recipe.runtime.watchdog_seconds
        self.saver = CheckpointSaver(checkpoints, recipe.checkpoint, contents, buffer, ranks, patience_seconds)

    def on_start(self, state: TrainState) -> None:
        self.saver.prepare()
        self.saver.saved = self.progress(state) if state.step else None

    def on_step(self, state: TrainState, result: StepResult) -> None:
        self.saver.poll()
        self.took(self.saver.save_seconds)
        if self.is_due(state) and self.settle(state):
            self.save(state)

    def is_due(self, state: TrainState) -> bool:
        """Whether the newest step is saved, if it was a good one."""
        # A run that was told to stop has little time: it is saved beside what other hooks still do, a grid say.
        return state.stop_reason is not None or state.step % self.recipe.checkpoint.every_steps == 0

    def on_stop(self, state: TrainState) -> None:
        """Returns when the last step is on disk; raises SaveError when it cannot be saved."""
        self.finish()
        if state.step == 0 or self.is_saved(state):
            return
        self.settle(state)
        self.save(state)
        self.finish()
        if not self.is_saved(state):
            raise self.saver.error(f"step {state.step} could not be saved")

    def finish(self) -> None:
        """Wait until what was saved is on the disk. Collective."""
        self.saver.wait()

    def save(self, state: TrainState) -> None:
        fragments = self.engine.fragments
        values = {WEIGHTS: [fragment.weight for fragment in fragments]}
        values |= {kind: [self.engine.moment(fragment, kind) for fragment in fragments] for kind in MOMENTS}
        values |= {ema_kind(decay): averages for decay, averages in self.ema.averages.items()}
        self.saver.start(self.progress(state), values)

    def is_saved(self, state: TrainState) -> bool:
        saved = self.saver.saved
        return saved is not None and (saved.step, saved.skipped_batches) == (state.step, state.skipped_batches)

    def progress(self, state: TrainState) -> Progress:
        bad_steps = deepcopy(state.bad_steps)  # training goes on and changes it
        return Progress(state.step, state.samples_seen, state.skipped_batches, bad_steps, self.engine.optimizer_step())
