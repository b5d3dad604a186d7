"""The files of a shard folder and the members of a shard: names, layout and arrays, shared by writer and reader.

{shards_root}/{split}/
    shard-000000.tar                 WebDataset tar, see `member_suffixes`
    shard-000000.index               where each sample lies in the tar, and the crc32 of each of its members
    shard-000000.json                done-mark, written last of the three
    null_prompt_embeds.npy           (T, X) float16, the text encoder's output for ""
    samples.index                    the shards' index files one after the other: what training reads
    index.json                       all shards with counts and digests, written last of all

A shard's index file has one RECORD for each sample, then, where embeddings are stored, the crc32 (uint32) of each
`prompt_embeds` member in the order of the tar.

Arrays are `.npy` members read at known offsets. Their header is compared with the one expected, byte for byte, so
nothing in a file chooses its own type or size, and nothing is unpickled.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 2
INDEX_FILE = "index.json"
SAMPLES_FILE = "samples.index"
NULL_FILE = "null_prompt_embeds.npy"
MAKE_AGAIN = "run `python -m data_prep shards` again"
BLOCK = 512  # bytes; a tar member is one header block and its payload padded to whole blocks
FLOAT, IDS, CRC32 = np.dtype("<f2"), np.dtype("<u2"), np.dtype("<u4")
RECORD = np.dtype(
    [
        ("id", "<i8"),
        ("offset", "<i8"),  # bytes from the start of the tar to the header of the sample's first member
        ("moments_crc32", CRC32),
        ("input_ids_crc32", CRC32),
        ("prompts_crc32", CRC32),
        ("prompts_size", "<u4"),  # bytes of prompts.json
        ("num_prompts", "<u4"),
        ("first_prompt_embeds", "<u4"),  # number of the first of its prompt_embeds members in the shard
    ]
)


@dataclass(frozen=True)
class ShardFiles:
    """The three files of shard `number` in `folder`."""

    folder: Path
    number: int

    @property
    def tar(self) -> Path:
        return self.folder / f"shard-{self.number:06d}.tar"

    @property
    def index(self) -> Path:
        return self.folder / f"shard-{self.number:06d}.index"

    @property
    def mark(self) -> Path:
        return self.folder / f"shard-{self.number:06d}.json"


@dataclass(frozen=True)
class SampleShapes:
    """Shapes that all samples of a folder share."""

    latent_channels: int  # C
    sample_size: int  # latent rows = columns
    num_text_tokens: int  # T
    text_hidden_size: int  # X

    @property
    def moments(self) -> tuple[int, int, int]:
        return (2 * self.latent_channels, self.sample_size, self.sample_size)

    @property
    def prompt_embeds(self) -> tuple[int, int]:
        return (self.num_text_tokens, self.text_hidden_size)

    def input_ids(self, num_prompts: int) -> tuple[int, int]:
        return (num_prompts, self.num_text_tokens)


def index_size(num_samples: int, num_prompts: int, has_embeddings: bool) -> int:
    """Bytes of a shard's index file."""
    return RECORD.itemsize * num_samples + CRC32.itemsize * num_prompts * has_embeddings


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The header of a C-ordered `.npy` file, version 1.0, as numpy writes it."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(10 + len(text) + 1) // 64) * 64  # the data starts at a multiple of 64 bytes
    return b"\x93NUMPY\x01\x00" + (length - 10).to_bytes(2, "little") + text.ljust(length - 11).encode() + b"\n"


def npy_bytes(array: NDArray) -> bytes:
    """`array` as the content of a `.npy` file."""
    return npy_header(array.dtype, array.shape) + np.ascontiguousarray(array).tobytes()


def npy_size(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Bytes of a `.npy` file."""
    return len(npy_header(dtype, shape)) + dtype.itemsize * int(np.prod(shape))


def member_span(payload_size: int) -> int:
    """Bytes that a member takes in the tar: header block and padded payload."""
    return BLOCK + -(-payload_size // BLOCK) * BLOCK


def prompts_json(prompts: Iterable[str]) -> bytes:
    """The content of a sample's `prompts.json`."""
    return json.dumps(list(prompts), ensure_ascii=False).encode()


def member_suffixes(num_prompts: int, has_embeddings: bool) -> list[str]:
    """The members of one sample in the order of the tar; the name of each is {sample id, 12 digits}.{suffix}."""
    embeds = [f"prompt_embeds.{caption}.npy" for caption in range(num_prompts)] if has_embeddings else []
    return ["latents.npy", "input_ids.npy", *embeds, "prompts.json"]


def member_name(sample_id: int, suffix: str) -> str:
    return f"{sample_id:012d}.{suffix}"
