"""A shard's tar read from its first header to its end, and compared with the shard's index, member by member."""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.caption_lengths import CaptionLengths, NumLonger
from data_prep.latent_statistics import LatentStatistics
from data_prep.stored_members import StoredIndex, StoredMember, StoredRecord
from data_prep.tar_members import Member, TarMembers
from ifvit.config.errors import UserError, printable
from ifvit.data.shard_format import ShardFiles

BATCH = 64  # samples in memory


@dataclass(frozen=True)
class PicturedSample:
    """A sample that a person is to look at."""

    shard: int
    id: int
    moments: NDArray[np.float16]  # (2C, H, W)
    prompts: list[str]


@dataclass(frozen=True)
class Selection:
    """What is looked at more closely; samples by their number in the set."""

    pictured: Collection[int] = ()
    drawn_every: int = 1  # of every so many samples one is drawn from for the histogram of latents
    num_longer: NumLonger | None = None


class WalkedSample(NamedTuple):
    """What can be used of a sample."""

    number: int  # in the set
    id: int
    moments: NDArray[np.float16]
    prompts: list[str]


class WalkError(Exception):
    """(what) is wrong, so that nothing behind it can be told."""


class TarWalk:
    """What is in one tar. `report` hears what is wrong with a member; the walk goes on."""

    def __init__(
        self,
        files: ShardFiles,
        index: StoredIndex,
        first_sample: int,
        selection: Selection,
        report: Callable[[str], object],
    ) -> None:
        self.files, self.index, self.selection, self.report = files, index, selection, report
        self.first_sample = first_sample  # its number in the set
        self.num_found = 0  # samples whose members are all where they must be
        shapes = index.described.shapes
        self.latents = LatentStatistics(shapes.latent_channels)
        self.lengths = CaptionLengths(shapes.num_text_tokens)
        self.pictured: list[PicturedSample] = []
        self.random = np.random.default_rng(files.number)

    def run(self) -> None:
        """Reads the whole tar; in memory is one batch of samples."""
        members = iter(TarMembers(self.files.tar))
        records = iter(self.index)
        try:
            with self.files.tar.open("rb") as file:
                while batch := list(islice(records, BATCH)):
                    samples = [self.read_sample(file.fileno(), record, members) for record in batch]
                    self.sum_up([sample for sample in samples if sample is not None])
            if extra := next(members, None):
                raise WalkError(f"{printable(extra.name)} lies behind the last one")
        except (WalkError, UserError, OSError) as error:
            what = str(error).removeprefix(f"{self.files.tar}: ")
            num_expected = len(self.index.records)
            self.report(f"{what}; checking stopped there, after {self.num_found:,} of its {num_expected:,} samples")

    def read_sample(self, file: int, record: StoredRecord, members: Iterator[Member]) -> WalkedSample | None:
        """The sample, None where it is damaged. Raises WalkError where the tar has other members than the index."""
        payloads = []
        for member in record.members:
            check_place(member, next(members, None))
            payload = os.pread(file, member.size, member.offset)
            fault = member.fault(payload)
            if fault:
                self.report(f"{member.name}: {fault}")
            payloads.append(None if fault else payload)
        number = self.first_sample + self.num_found
        self.num_found += 1
        moments, input_ids, *_, prompts_json = payloads
        prompts = None if prompts_json is None else record.prompts_in(prompts_json)
        if prompts is None and prompts_json is not None:
            self.report(f"{record.prompts.name}: has no list of {record.num_prompts} usable captions")
        if prompts is not None and input_ids is not None:
            self.read_ids(record.input_ids, record.input_ids.array(input_ids), prompts)
        if moments is None or prompts is None:
            return None
        return WalkedSample(number, record.id, record.moments.array(moments), prompts)

    def read_ids(self, member: StoredMember, input_ids: NDArray[np.uint16], prompts: list[str]) -> None:
        tokens = self.index.described.tokens
        if fault := tokens.fault(input_ids):
            self.report(f"{member.name}: {fault}")
        else:
            self.lengths.add(tokens.lengths(input_ids), prompts, self.selection.num_longer)

    def sum_up(self, samples: list[WalkedSample]) -> None:
        if not samples:
            return
        self.latents.add(np.stack([sample.moments for sample in samples]))
        drawn = [sample.moments for sample in samples if sample.number % self.selection.drawn_every == 0]
        if drawn:
            self.latents.draw(np.stack(drawn), self.index.described.scaling_factor, self.random)
        for sample in samples:
            if sample.number in self.selection.pictured:
                moments = sample.moments.copy()  # not a view of all that was read
                self.pictured.append(PicturedSample(self.files.number, sample.id, moments, sample.prompts))


def check_place(expected: StoredMember, found: Member | None) -> None:
    """Raises WalkError where another member lies in the tar than its index says."""
    if found is None:
        raise WalkError(f"it ends before {expected.name}")
    if (found.name, found.offset, found.size) != (expected.name, expected.offset, expected.size):
        raise WalkError(
            f"at byte {found.offset} lie {found.size:,} bytes of {printable(found.name)}, but its index has "
            f"{expected.size:,} bytes of {expected.name} at byte {expected.offset}"
        )
