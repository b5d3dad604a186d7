"""What one worker does: make the shards that nobody else makes, and the index where no shard is missing."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from data_prep.bad_samples import BadLimit, marks_to_delete
from data_prep.folder_lock import LOCK_FILE, Claims, one_at_a_time
from data_prep.index_stage import write_index
from data_prep.shard_folder import CLAIMS_FILE, num_missing, refuse_other_shards, remove_leftovers, storage_errors
from data_prep.shard_job import ShardJob
from data_prep.shard_writer import ShardUnit, ShardWriter
from data_prep.sources import source_of
from ifvit.config.errors import UserError, printable
from ifvit.config.schema import Recipe
from ifvit.data.images import refuse_bombs
from ifvit.data.shard_format import ShardFiles
from ifvit.encoders.loading import load_encoders
from ifvit.runtime.distributed import Ranks, training_device

MAX_TOKENS = 65536


class ShardWorker:
    """One process of a job.

    `report` hears ("ready", 1) once the encoders are loaded, ("encoded", number of samples), ("made", number of shards)
    and ("complete", 1) for the whole set.
    """

    def __init__(self, job: ShardJob, report: Callable[[str, int], object], worker: int = 0) -> None:
        refuse_bombs()
        self.job, self.report, self.listing, self.folder = job, report, job.listing, job.folder
        recipe = job.recipe
        num_gpus = torch.cuda.device_count()
        device = training_device(Ranks(local_rank=worker % num_gpus if num_gpus else 0))
        self.encoders = load_encoders(recipe, device)
        self.settings = shard_settings(recipe, self.encoders.autoencoder.identity, self.encoders.text_encoder.identity)
        if (num_tokens := len(self.encoders.text_encoder.tokenizer)) > MAX_TOKENS:
            raise UserError(
                f"encoders.tokenizer: has {num_tokens} tokens, shards store ids as uint16: at most {MAX_TOKENS}"
            )
        self.root = source_of(recipe.data).root
        self.limit = BadLimit(recipe.data.max_bad_share, self.listing.num_samples, self.listing.faults)
        self.writer = ShardWriter(
            self.encoders.autoencoder,
            self.encoders.text_encoder,
            image_size=recipe.model.sample_size * self.encoders.autoencoder.factor,
            stores_embeddings=recipe.data.text_storage == "embeddings",
            batch_size=recipe.data.encode_batch_size,
            settings=self.settings,
        )
        report("ready", 1)

    def run(self) -> None:
        """Makes what is missing of the task's shards, but for those that other processes are making."""
        refuse_other_shards(self.folder, self.listing.num_shards)
        with storage_errors(self.folder), one_cpu_thread(), Claims(self.folder / CLAIMS_FILE) as claims:
            marks = {unit: self.finished(unit) for unit in self.job.units}
            there = [mark for mark in marks.values() if mark]
            self.limit.marks = marks_to_delete(there)
            for mark in there:
                self.limit.add_finished(mark)
            missing = [unit for unit, mark in marks.items() if mark is None]
            # Once more after the last one: whoever made a shard that is missing may have been killed.
            while made := [unit for unit in missing if self.make(unit, claims)]:
                missing = [unit for unit in missing if unit not in made]
            self.finish()

    def finished(self, unit: int) -> dict[str, Any] | None:
        return self.job.finished(unit, self.settings)

    def make(self, unit: int, claims: Claims) -> bool:
        """Whether shard `unit` is finished now and was not when this was called first."""
        if not claims.take(unit):
            return False
        try:
            if mark := self.finished(unit):  # another process has made it since
                self.limit.add_finished(mark)
            else:
                self.write(unit)
            return True
        finally:
            claims.give_back(unit)

    def write(self, unit: int) -> None:
        files = ShardFiles(self.folder, unit)
        shard = ShardUnit(files, self.listing.shard(unit), self.listing.shard_sha256(unit), self.root)
        try:
            self.writer.write(shard, self.limit, lambda count: self.report("encoded", count))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"data.encode_batch_size: is {self.writer.batch_size}, for which there is too little memory "
                f"({printable(str(error))[:200]}); start fewer --workers, or make all shards with a smaller one"
            ) from error
        self.report("made", 1)

    def finish(self) -> None:
        """Write the index, where all shards of all tasks are there. Any number of processes may do so."""
        if num_missing(self.folder, self.listing.num_shards):
            return
        with one_at_a_time(self.folder / LOCK_FILE, "writes the index"):
            marks = [mark for unit in range(self.listing.num_shards) if (mark := self.finished(unit))]
            if len(marks) < self.listing.num_shards:  # one of another task has its mark, and must be made again
                return
            write_index(self.folder, self.job.recipe, self.listing, marks, self.encoders)
            remove_leftovers(self.folder)
        self.report("complete", 1)


def shard_settings(
    recipe: Recipe, autoencoder_identity: dict[str, Any], text_encoder_identity: dict[str, Any]
) -> dict[str, Any]:
    """What a shard's content depends on, by the field that chooses it; encoders by the digest of their weights."""
    return {
        "data.split": recipe.data.split,
        "data.text_storage": recipe.data.text_storage,
        "data.samples_per_shard": recipe.data.samples_per_shard,
        "data.encode_batch_size": recipe.data.encode_batch_size,
        "model.sample_size": recipe.model.sample_size,
        "model.num_text_tokens": recipe.model.num_text_tokens,
        "encoders.autoencoder": autoencoder_identity["sha256"],
        "encoders.text_encoder": text_encoder_identity["sha256"],
        "encoders.tokenizer": text_encoder_identity["tokenizer_sha256"],
    }


def is_out_of_memory(error: Exception) -> bool:
    """Also torch's on the CPU, which is any RuntimeError by its type."""
    texts = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


@contextlib.contextmanager
def one_cpu_thread() -> Iterator[None]:
    """Encode with one thread on the CPU: how a product is split among threads changes its last bits, and shards must
    not depend on the number of cores. Cores are used by several workers.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
