"""The files of a set of shards that belong to no single shard: read again, and what is wrong with them."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data_prep.faults import Fault
from data_prep.listing import LISTING_FOLDER, rows_name
from data_prep.set_description import ListingDescription, SetIndex
from data_prep.shard_verification import reading_error
from data_prep.stored_members import all_finite
from ifvit.config.errors import UserError, printable
from ifvit.data.shard_format import FLOAT, NULL_FILE, SAMPLES_FILE, index_size, npy_header, npy_size
from ifvit.runtime.files import file_sha256

SHARD_FILE = re.compile(r"shard-([0-9]{6,})\.(tar|index|json)")


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raises UserError where `folder` or one below it cannot be read at all."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error


def listing_faults(folder: Path, listing: ListingDescription) -> Iterator[Fault]:
    """Files of rows that are not as listing.json says."""
    for number, shard in enumerate(listing.shards):
        name = f"{LISTING_FOLDER}/{rows_name(number)}"
        try:
            if file_sha256(folder / name) != shard.sha256:
                yield Fault(name, "its sha256 differs")
        except OSError as error:
            yield Fault(name, reading_error(error))


def null_fault(folder: Path, described: SetIndex) -> Fault | None:
    """What is wrong with the null embedding."""
    shape = described.shapes.prompt_embeds
    try:
        size = (folder / NULL_FILE).stat().st_size
        if size != (expected := npy_size(FLOAT, shape)):
            return Fault(NULL_FILE, f"has {size:,} bytes instead of {expected:,}")
        content = (folder / NULL_FILE).read_bytes()
    except OSError as error:
        return Fault(NULL_FILE, reading_error(error))
    header = npy_header(FLOAT, shape)
    if not content.startswith(header):
        return Fault(NULL_FILE, f"is no .npy array of {FLOAT.name} {shape}: its header differs")
    if hashlib.sha256(content).hexdigest() != described.null_prompt_embeds_sha256:
        return Fault(NULL_FILE, "its sha256 differs")
    if not all_finite(np.frombuffer(content, FLOAT, offset=len(header))):
        return Fault(NULL_FILE, "has values that are not finite")
    return None


def samples_index_fault(folder: Path, described: SetIndex) -> Fault | None:
    """What is wrong with samples.index: it must be the shards' index files one after the other."""
    sizes = [index_size(shard.samples, shard.prompts, described.has_embeddings) for shard in described.shards]
    path = folder / SAMPLES_FILE
    try:
        if (size := path.stat().st_size) != sum(sizes):
            return Fault(SAMPLES_FILE, f"has {size:,} bytes instead of {sum(sizes):,}")
        with path.open("rb") as file:
            parts = zip(sizes, described.shards, strict=True)
            is_wrong = [hashlib.sha256(file.read(size)).hexdigest() != shard.index_sha256 for size, shard in parts]
    except OSError as error:
        return Fault(SAMPLES_FILE, reading_error(error))
    if any(is_wrong):
        first = is_wrong.index(True)
        return Fault(
            SAMPLES_FILE, f"{sum(is_wrong):,} parts of it are not as index.json says, first that of shard {first}"
        )
    return None


def foreign_files(folder: Path, num_shards: int) -> Iterator[Fault]:
    """Tars, and files of shards, that are none of the set's."""
    for name in sorted(entry.name for entry in os.scandir(folder)):
        match = SHARD_FILE.fullmatch(name)
        number = int(match[1]) if match else num_shards
        if (match or name.endswith(".tar")) and not (number < num_shards and f"shard-{number:06d}." in name):
            yield Fault(printable(name), f"is none of the set's {num_shards:,} shards; move it away", is_foreign=True)
