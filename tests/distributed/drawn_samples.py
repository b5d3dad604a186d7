"""What a run was trained on: sample, caption, noise and timestep of every row of every batch, as digests."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ifvit.data.batch import Batch
from ifvit.diffusion.objective import Draws, Objective


@contextmanager
def recorded_samples(file: Path) -> Iterator[None]:
    """Append to `file`, as each rank does, what is drawn in the block: a line for each row. Nothing drawn, no file."""
    original, lines = Objective.draw, []

    def draw(objective: Objective, number: int, batch: Batch) -> Draws:
        draws = original(objective, number, batch)
        for row, (global_row, sample_id) in enumerate(
            zip(batch.global_rows.tolist(), batch.sample_ids.tolist(), strict=True)
        ):
            drawn = (batch.moments, batch.prompt_embeds, batch.is_dropped)
            drawn += (draws.timesteps, draws.noise, draws.latent_noise)
            digests = [digest(values[row]) for values in drawn if values is not None]
            lines.append(json.dumps([number, global_row, sample_id, *digests]) + "\n")
        return draws

    Objective.draw = draw  # type: ignore[method-assign]
    try:
        yield
    finally:
        Objective.draw = original  # type: ignore[method-assign]
        if lines:
            with file.open("a") as records:
                records.write("".join(lines))


def digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()[:16]


def drawn_samples(file: Path) -> dict[tuple[int, int], tuple[object, ...]]:
    """By batch and row of the global batch; a batch that was drawn again must have been drawn the same."""
    samples: dict[tuple[int, int], tuple[object, ...]] = {}
    for line in file.read_text().splitlines():
        number, row, *rest = json.loads(line)
        assert samples.setdefault((number, row), tuple(rest)) == tuple(rest), f"batch {number}, row {row}"
    return samples
