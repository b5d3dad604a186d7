"""A folder of shards read again, all of it: whether its files agree with each other, and what they hold."""

import math
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_prep.bad_samples import Tally
from data_prep.caption_lengths import CaptionLengths, NumLonger
from data_prep.faults import Fault, FaultList
from data_prep.latent_statistics import LatentStatistics
from data_prep.listing import LISTING_FILE, LISTING_FOLDER
from data_prep.set_description import (
    Described,
    DescriptionError,
    DoneMark,
    ListingDescription,
    SetIndex,
    tally_of,
)
from data_prep.set_files import foreign_files, listing_faults, null_fault, samples_index_fault
from data_prep.shard_folder import num_missing
from data_prep.shard_verification import SUM_TOLERANCE, ShardVerification
from data_prep.tar_walk import PicturedSample, Selection
from ifvit.config.errors import UserError
from ifvit.data.shard_content import measured_scaling_factor
from ifvit.data.shard_format import INDEX_FILE, ShardFiles
from ifvit.runtime.progress import Progress

Description = TypeVar("Description", bound=Described)
MAX_DRAWN = 4096  # samples, about, that latents are drawn of for the histogram
MAX_THREADS = 8
MAX_SHOWN = 200  # characters of a value in a message


class SetVerification:
    """What is wrong with the shards in `folder`, and what they hold. In memory is one batch of samples.

    Raises UserError where there are none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults = FaultList()
        self.index = self.description(SetIndex, INDEX_FILE)
        listing_file = f"{LISTING_FOLDER}/{LISTING_FILE}"
        has_listing = (folder / listing_file).exists()  # shards that were copied here may come without it
        self.listing = self.description(ListingDescription, listing_file) if has_listing else None
        self.num_shards = self.number_of_shards()
        if not self.num_shards:
            raise UserError(f"{folder}: holds no shards{self.hint()}")
        self.mark: DoneMark | None = None  # the first one that can be used
        self.num_marks = 0
        self.quarantined, self.dropped = Tally(), Counter[str]()
        self.latent_sums = np.zeros(4)  # as the done-marks have them
        self.num_samples = self.num_prompts = 0  # that are where they must be
        self.num_bytes = 0
        shapes = self.index.shapes if self.index else None
        self.latents = LatentStatistics(shapes.latent_channels if shapes else 0)
        self.lengths = CaptionLengths(shapes.num_text_tokens if shapes else 0)
        self.pictured: list[PicturedSample] = []
        self.last: tuple[int, str] | None = None  # id of the last sample so far, and its tar
        self.counts_cut = False  # whether of captions that fill all tokens it is known which are cut

    @property
    def sound_index(self) -> SetIndex:
        """The index of a set without faults."""
        assert self.index is not None and not self.faults, "only for a set without faults"
        return self.index

    def description(self, kind: type[Description], name: str) -> Description | None:
        try:
            return kind.read(self.folder / name)
        except DescriptionError as error:
            self.faults.add(Fault(name, str(error)))
            return None

    def number_of_shards(self) -> int:
        """As index.json says, else the listing, else the files that are there."""
        if self.index:
            return len(self.index.shards)
        if self.listing:
            return len(self.listing.shards)
        names = [path.stem[6:] for path in self.folder.glob("shard-??????.*")]
        return 1 + max((int(name) for name in names if name.isdecimal()), default=-1)

    @property
    def unfinished(self) -> int:
        """Of a set that is still being made, or whose making was ended: how many of its shards are missing."""
        if self.listing is None or (self.folder / INDEX_FILE).exists():
            return 0
        return num_missing(self.folder, self.num_shards)

    def hint(self) -> str:
        if not self.folder.is_dir():
            return ": it is no folder"
        below = sorted(path.parent for path in self.folder.glob(f"*/{INDEX_FILE}"))
        return f"; give the folder of one split, such as {below[0]}" if below else " and no index.json"

    def run(
        self, num_pictured: int = 0, num_longer: NumLonger | None = None, only: Collection[int] | None = None
    ) -> None:
        """Verify everything; of the shards but `only` nothing except their done-marks.

        `num_pictured` samples, spread evenly, are kept; `num_longer` tells captions that are cut from those that fit.
        """
        sizes = [shard.samples for shard in self.index.shards] if self.index else [0] * self.num_shards
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        self.counts_cut = num_longer is not None
        places = (np.arange(num_pictured) + 0.5) / max(num_pictured, 1) * firsts[-1]
        selection = Selection(frozenset(places.astype(int).tolist()), max(1, int(firsts[-1]) // MAX_DRAWN), num_longer)

        def verified(number: int) -> ShardVerification:
            shard = self.with_mark(number)
            if only is None or number in only:
                shard.read_content(int(firsts[number]), selection)
            return shard

        with Progress(self.num_shards, "verifying", unit="shards") as progress:
            for shard in in_order(verified, range(self.num_shards)):
                self.sum_up(shard)
                progress.advance()
        self.verify_set()

    def with_mark(self, number: int) -> ShardVerification:
        listed = self.listing.shards[number : number + 1] if self.listing else []
        shard = ShardVerification(ShardFiles(self.folder, number), self.index, listed[0] if listed else None)
        shard.read_mark()
        return shard

    def sum_up(self, shard: ShardVerification) -> None:
        """Add what is in a shard; the one before it comes first."""
        self.compare_ids(shard)
        self.faults.merge(shard.faults)
        if mark := shard.mark:
            self.mark = self.mark or mark
            self.num_marks += 1
            self.latent_sums += mark.latent_sums
            self.dropped.update(mark.dropped_captions)
            for sample in mark.quarantined:
                self.quarantined.add(sample.reason, sample.id, sample.image)
            self.num_bytes += mark.size
            if shard.indexed and (names := mark.differences(shard.indexed)):
                what = f"has another {' and '.join(names)} of {mark.tar} than {shard.files.mark.name}"
                self.faults.add(Fault(INDEX_FILE, what))
        if walk := shard.walk:
            self.num_samples += walk.num_found
            self.num_prompts += walk.lengths.total
            self.latents.merge(walk.latents)
            self.lengths.merge(walk.lengths)
            self.pictured += walk.pictured

    def compare_ids(self, shard: ShardVerification) -> None:
        """Ids ascend from shard to shard, as every source lists them: so none is there twice."""
        if shard.ids is None:
            return
        if self.last and shard.ids[0] <= self.last[0]:
            what = f"begins with id {shard.ids[0]}, but {self.last[1]} ends with {self.last[0]}"
            shard.report(shard.files.tar, f"{what}: a sample is there twice, or a shard is out of place")
        self.last = (shard.ids[1], shard.files.tar.name)

    def verify_set(self) -> None:
        """The files beside the shards, and whether index.json sums up what the others say."""
        for fault in foreign_files(self.folder, self.num_shards):
            self.faults.add(fault)
        if self.listing:
            for fault in listing_faults(self.folder, self.listing):
                self.faults.add(fault)
        if self.index is None:
            return
        for found in (null_fault(self.folder, self.index), samples_index_fault(self.folder, self.index)):
            if found:
                self.faults.add(found)
        self.compare_counts(self.index)
        if self.num_marks == self.num_shards and self.latent_sums[0]:
            self.compare_factor(self.index, measured_scaling_factor(self.latent_sums), "the done-marks give")
        if self.recomputed_scaling_factor is not None:
            self.compare_factor(self.index, self.recomputed_scaling_factor, "the latents give")

    def compare_counts(self, index: SetIndex) -> None:
        """What index.json sums up of the other files, as far as those could be read."""
        for name in ("samples", "prompts", "size"):
            self.compare(name, getattr(index, name), sum(getattr(shard, name) for shard in index.shards))
        dropped = tally_of(index.dropped_captions)
        if self.listing:
            self.compare("number of shards", self.num_shards, len(self.listing.shards))
            self.compare("listed_samples", index.listed_samples, self.listing.samples)
            self.compare("dropped_captions", dropped.as_json(), tally_of(self.listing.dropped_captions).as_json())
        if self.num_marks == self.num_shards:
            self.compare("quarantined", tally_of(index.quarantined).as_json(), self.quarantined.as_json())
            self.compare("dropped_captions", dropped.counts, dict(self.dropped))

    def compare(self, name: str, said: Any, found: Any) -> None:
        if said != found:
            self.faults.add(Fault(INDEX_FILE, f"{name} is {shortened(said)}, must be {shortened(found)}"))

    def compare_factor(self, index: SetIndex, found: float, who: str) -> None:
        if not math.isclose(index.measured_scaling_factor, found, rel_tol=SUM_TOLERANCE):
            what = f"measured_scaling_factor is {index.measured_scaling_factor}, {who} {found}"
            self.faults.add(Fault(INDEX_FILE, what))

    @property
    def recomputed_scaling_factor(self) -> float | None:
        """From the moments of all samples; None where not all could be read."""
        num_samples = sum(shard.samples for shard in self.index.shards) if self.index else 0
        if (
            self.index is None
            or not num_samples
            or self.latents.count != num_samples * self.index.shapes.sample_size**2
        ):
            return None
        return measured_scaling_factor(self.latents.all_sums)


def in_order(verified: Callable[[int], ShardVerification], numbers: Iterable[int]) -> Iterator[ShardVerification]:
    """`verified` of each number, by threads: digests and reading run outside the interpreter's lock."""
    num_threads = min(len(os.sched_getaffinity(0)), MAX_THREADS)
    ahead: deque[Future[ShardVerification]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for number in numbers:
                ahead.append(pool.submit(verified, number))
                if len(ahead) > num_threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def shortened(value: Any) -> str:
    """A value of index.json, for a message."""
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
