"""The last files of a set of shards, whose presence says that it is whole."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifvit.data.sealed_json import sealed_json
from ifvit.data.shard_format import (
    FORMAT_VERSION,
    INDEX_FILE,
    NULL_FILE,
    SAMPLES_FILE,
    SampleShapes,
    ShardFiles,
    npy_bytes,
)
from ifvit.runtime.files import atomic_file, write_atomically

PER_SHARD = ("tar", "samples", "prompts", "size", "sha256", "index_sha256")
TOTALS = ("samples", "prompts", "size")


def write_shard_index(
    folder: Path,
    shards: Sequence[Mapping[str, Any]],
    shapes: SampleShapes,
    null_prompt_embeds: NDArray[np.float16],
    described: Mapping[str, Any],
) -> None:
    """The null embedding (T, X), samples.index and, last of all, index.json.

    `shards` have PER_SHARD and perhaps more; `described` is the rest of index.json: split, encoders, scale and so on.
    """
    null_content = npy_bytes(null_prompt_embeds)
    write_atomically(folder / NULL_FILE, null_content)
    join_files([ShardFiles(folder, number).index for number in range(len(shards))], folder / SAMPLES_FILE)
    index = {
        "format_version": FORMAT_VERSION,
        "shapes": vars(shapes),
        **{name: sum(shard[name] for shard in shards) for name in TOTALS},
        **described,
        "null_prompt_embeds_sha256": hashlib.sha256(null_content).hexdigest(),
        "shards": [{name: shard[name] for name in PER_SHARD} for shard in shards],
    }
    write_atomically(folder / INDEX_FILE, sealed_json(index))


def join_files(parts: Iterable[Path], whole: Path) -> None:
    """`whole`, which appears when it is there, as `parts` one after the other."""
    with atomic_file(whole) as file:
        for part in parts:
            file.write(part.read_bytes())
