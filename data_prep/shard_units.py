"""What one worker does: make the shards that nobody else makes, and the index where no shard is missing."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from data_prep.bad_samples import BadLimit
from data_prep.folder_lock import Claims, one_at_a_time
from data_prep.listed_sample import LISTING_FAULTS
from data_prep.shard_folder import CLAIMS_FILE, finished_mark, num_missing, refuse_other_shards, remove_leftovers
from data_prep.shard_index import write_index
from data_prep.shard_job import ShardJob
from data_prep.shard_writer import ShardUnit, ShardWriter
from data_prep.sources import source_of
from ifvit.config.errors import UserError
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
        with one_cpu_thread(), Claims(self.folder / CLAIMS_FILE) as claims:
            missing = []
            for unit in self.job.units:
                if mark := self.finished(unit):
                    self.count_bad(mark)
                else:
                    missing.append(unit)
            # Once more after the last one: whoever made a shard that is missing may have been killed.
            while made := [unit for unit in missing if self.make(unit, claims)]:
                missing = [unit for unit in missing if unit not in made]
            self.finish()

    def finished(self, unit: int) -> dict[str, Any] | None:
        return finished_mark(ShardFiles(self.folder, unit), self.listing.shard_sha256(unit), self.settings)

    def count_bad(self, mark: dict[str, Any]) -> None:
        for entry in mark["quarantined"]:
            if entry["reason"] not in LISTING_FAULTS:
                self.limit.add(entry["reason"], entry["id"], entry["detail"])

    def make(self, unit: int, claims: Claims) -> bool:
        """Whether shard `unit` is finished now and was not when this was called first."""
        if not claims.take(unit):
            return False
        try:
            if mark := self.finished(unit):  # another process has made it since
                self.count_bad(mark)
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
        except OSError as error:
            raise UserError(f"{files.tar}: cannot be written ({error}); the same command goes on from there") from error
        self.report("made", 1)

    def finish(self) -> None:
        """Write the index, where all shards of all tasks are there. Any number of processes may do so."""
        if num_missing(self.folder, self.listing.num_shards):
            return
        with one_at_a_time(self.folder / ".lock", "writes the index"):
            marks = (self.mark_of_finished(unit) for unit in range(self.listing.num_shards))
            write_index(self.folder, self.job.recipe, self.listing, marks, self.encoders)
            remove_leftovers(self.folder)
        self.report("complete", 1)

    def mark_of_finished(self, unit: int) -> dict[str, Any]:
        if mark := self.finished(unit):
            return mark
        tar = ShardFiles(self.folder, unit).tar
        raise UserError(
            f"{tar}: is missing or damaged; run `python -m data_prep shards` without --task to make it again"
        )


def shard_settings(
    recipe: Recipe, autoencoder_identity: dict[str, Any], text_encoder_identity: dict[str, Any]
) -> dict[str, Any]:
    """What a shard's content depends on, by the field that chooses it; encoders by the digest of their weights."""
    return {
        "data.split": recipe.data.split,
        "data.text_storage": recipe.data.text_storage,
        "data.samples_per_shard": recipe.data.samples_per_shard,
        "model.sample_size": recipe.model.sample_size,
        "model.num_text_tokens": recipe.model.num_text_tokens,
        "encoders.autoencoder": autoencoder_identity["sha256"],
        "encoders.text_encoder": text_encoder_identity["sha256"],
        "encoders.tokenizer": text_encoder_identity["tokenizer_sha256"],
    }


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
