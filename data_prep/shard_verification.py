"""One shard read again, all of it: done-mark, index file and tar, each compared with the others."""

import hashlib
from pathlib import Path

import numpy as np

from data_prep.faults import MAX_KEPT_OF_SHARD, Fault, FaultList
from data_prep.set_description import DescriptionError, DoneMark, ListedShard, SetIndex, ShardFacts
from data_prep.stored_members import StoredIndex
from data_prep.tar_walk import Selection, TarWalk
from ifvit.data.shard_format import ShardFiles, index_size
from ifvit.runtime.files import file_sha256

# Of sums of float64 over a shard: other machines add in another order, and their exponential has another last bit. That
# makes about 1e-13 of the sum of absolute values; what is summed was rounded to float16, to 5e-4.
SUM_TOLERANCE = 1e-9


class ShardVerification:
    """What is wrong with the shard, and what it holds.

    `described` None: index.json cannot be used, and only what the done-mark says can be compared.
    """

    def __init__(self, files: ShardFiles, described: SetIndex | None, listed: ListedShard | None) -> None:
        self.files, self.described, self.listed = files, described, listed
        self.faults = FaultList(MAX_KEPT_OF_SHARD)
        self.mark: DoneMark | None = None
        self.walk: TarWalk | None = None
        self.ids: tuple[int, int] | None = None  # of the first and the last sample

    def report(self, path: Path, what: str) -> None:
        self.faults.add(Fault(path.name, what, shard=self.files.number))

    def read_mark(self) -> None:
        """The done-mark, compared with what index.json and the listing say of the shard."""
        try:
            mark = DoneMark.of(self.files)
        except DescriptionError as error:
            self.report(self.files.mark, str(error))
            return
        self.mark = mark
        if self.listed and mark.listing_sha256 != self.listed.sha256:
            self.report(self.files.mark, "the shard was made from other images or captions than are listed")
        elif self.listed and mark.samples + len(mark.quarantined) != self.listed.samples:
            self.report(self.files.mark, f"does not account for all of the {self.listed.samples:,} listed samples")
        expected = self.described.settings if self.described else {}
        if other := [name for name, value in expected.items() if mark.settings.get(name) != value]:
            self.report(self.files.mark, f"the shard was made with another {other[0]} than index.json says")

    @property
    def indexed(self) -> ShardFacts | None:
        """The shard's entry of index.json."""
        shards = self.described.shards if self.described else []
        return shards[self.files.number] if self.files.number < len(shards) else None

    @property
    def facts(self) -> ShardFacts | None:
        """What the shard must be: as its done-mark says, or index.json where the mark cannot be used."""
        return self.mark or self.indexed

    def read_content(self, first_sample: int, selection: Selection) -> None:
        """The index file and the tar. `first_sample` is the number of the shard's first sample in the set."""
        facts, tar = self.facts, self.files.tar
        if facts is None:
            return
        index = self.read_index(facts)
        try:
            size = tar.stat().st_size
            is_whole = size == facts.size and file_sha256(tar) == facts.sha256
        except OSError as error:
            self.report(tar, reading_error(error))
            return
        if size != facts.size:
            self.report(tar, f"has {size:,} bytes instead of {facts.size:,}")
        before = self.faults.count
        if index is not None:
            self.walk_tar(index, first_sample, selection)
        if size == facts.size and not is_whole and self.faults.count == before:
            where = ", but no member does: a header or what lies between members is damaged" if self.walk else ""
            self.report(tar, f"its sha256 differs{where}")

    def read_index(self, facts: ShardFacts) -> StoredIndex | None:
        """The shard's index, None where it is damaged or nothing is known of what the tar must hold."""
        path = self.files.index
        try:
            found = path.stat().st_size
            content = path.read_bytes() if found <= facts.size else b""  # an index is smaller than its tar
        except OSError as error:
            self.report(path, reading_error(error))
            return None
        if hashlib.sha256(content).hexdigest() != facts.index_sha256:
            self.report(path, f"its sha256 differs; it has {found:,} bytes")
            return None
        if self.described is None:
            return None
        expected = index_size(facts.samples, facts.prompts, self.described.has_embeddings)
        fault = f"has {found:,} bytes instead of {expected:,}"
        if found == expected:
            index = StoredIndex(content, facts, self.described)
            if not (fault := index.fault() or ""):
                return index
        self.report(path, fault)
        return None

    def walk_tar(self, index: StoredIndex, first_sample: int, selection: Selection) -> None:
        if index.facts.samples:
            self.ids = (int(index.records["id"][0]), int(index.records["id"][-1]))
        before = self.faults.count
        walk = TarWalk(self.files, index, first_sample, selection, lambda what: self.report(self.files.tar, what))
        walk.run()
        self.walk = walk
        if self.mark and self.faults.count == before:
            self.compare_sums(self.mark, walk)

    def compare_sums(self, mark: DoneMark, walk: TarWalk) -> None:
        """The sums over the latents in the done-mark, from which the scaling factor is measured."""
        found, said = walk.latents.all_sums, np.array(mark.latent_sums)
        tolerance = SUM_TOLERANCE * np.abs(found)
        tolerance[1] = SUM_TOLERANCE * np.sqrt(found[0] * found[2])  # a bound of the sum of absolute means
        if said.shape != found.shape or not (np.abs(said - found) <= tolerance).all():
            self.report(self.files.mark, f"has latent_sums {said.tolist()}, the shard has {found.tolist()}")


def reading_error(error: OSError) -> str:
    """Why a file cannot be read."""
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
