"""One attention backend for all ranks of a training run."""

from dataclasses import replace

import torch

from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.model.attention import activate
from ifvit.model.attention_cache import user_cache_folder
from ifvit.model.attention_choice import AttentionChoice, activate_for_sampling, choose_for_training
from ifvit.runtime.agreement import agreed_errors, on_first_rank
from ifvit.runtime.devices import TRAINING_DTYPES
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.environment import gpu_names, last_attempt
from ifvit.runtime.run_directory import RunDirectory


def shared_attention_choice(
    recipe: Recipe, directory: RunDirectory, ranks: Ranks, device: torch.device
) -> AttentionChoice:
    """Make the backend that rank 0 finds best, or the recipe names, the active one on every rank, if it works there."""
    name, model, batch_size = recipe.runtime.attention_backend, recipe.model, recipe.train.micro_batch_size
    dtype = TRAINING_DTYPES[recipe.train.precision]

    def choose(name: str, earlier: str | None) -> AttentionChoice:
        return choose_for_training(name, model, batch_size, dtype, device, user_cache_folder(), earlier)

    choice = on_first_rank(ranks, lambda: choose(name, earlier_backend(directory)))
    with agreed_errors(ranks):
        if ranks.rank > 0:
            try:
                choose(choice.backend, None)
            except UserError as error:
                raise UserError(f"rank {ranks.rank} is another machine than rank 0: {error}") from error
        if dtype != torch.float32:  # grids are made in float32
            for_grids = activate_for_sampling(name, model, device)
            choice = replace(choice, notices=(*choice.notices, *for_grids.notices))
        activate(choice.backend, dtype)
    return choice


def earlier_backend(directory: RunDirectory) -> str | None:
    """What the run's last start had, if that was on GPUs of the same kind."""
    attempt = last_attempt(directory.environment_file)
    if attempt is None or set(attempt["gpus"]) != set(gpu_names()):
        return None
    return str(attempt["attention_backend"])
