"""What goes into a shard: samples as members of its tar, and the index of where they lie."""

import io
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ifvit.data.shard_format import CRC32, RECORD, member_name, member_suffixes, npy_bytes, prompts_json


@dataclass(frozen=True)
class StoredSample:
    """What is stored of one image. N captions, T text tokens, X text width."""

    id: int
    prompts: Sequence[str]
    moments: NDArray[np.float16]  # (2C, H, W)
    input_ids: NDArray[np.uint16]  # (N, T)
    prompt_embeds: NDArray[np.float16] | None  # (N, T, X)

    def payloads(self) -> list[bytes]:
        """The members' contents, in the order of `member_suffixes`."""
        embeds = [] if self.prompt_embeds is None else [npy_bytes(embeds) for embeds in self.prompt_embeds]
        return [npy_bytes(self.moments), npy_bytes(self.input_ids), *embeds, prompts_json(self.prompts)]

    @property
    def is_finite(self) -> bool:
        arrays = [self.moments] if self.prompt_embeds is None else [self.moments, self.prompt_embeds]
        return all(bool(np.isfinite(array).all()) for array in arrays)


@dataclass
class ShardContent:
    """The tar as it grows, and what is noted about it."""

    tar: tarfile.TarFile
    records: list[tuple[int, ...]] = field(default_factory=list)
    prompt_embeds_crc32: list[int] = field(default_factory=list)
    num_prompts: int = 0
    latent_sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))

    def add(self, sample: StoredSample) -> None:
        payloads = sample.payloads()
        num_prompts = len(sample.prompts)
        moments, input_ids, *embeds, prompts = (zlib.crc32(payload) for payload in payloads)
        first_prompt_embeds = len(self.prompt_embeds_crc32)
        self.records.append(
            (
                *(sample.id, self.tar.offset, moments, input_ids, prompts),
                *(len(payloads[-1]), num_prompts, first_prompt_embeds),
            )
        )
        self.prompt_embeds_crc32 += embeds
        self.num_prompts += num_prompts
        suffixes = member_suffixes(num_prompts, sample.prompt_embeds is not None)
        for suffix, payload in zip(suffixes, payloads, strict=True):
            member = tarfile.TarInfo(member_name(sample.id, suffix))  # mtime, uid and gid are 0
            member.size = len(payload)
            self.tar.addfile(member, io.BytesIO(payload))
        self.latent_sums += latent_sums(sample.moments)

    def index_bytes(self) -> bytes:
        """The content of the shard's index file."""
        return np.array(self.records, RECORD).tobytes() + np.array(self.prompt_embeds_crc32, CRC32).tobytes()


def latent_sums(moments: NDArray[np.float16]) -> NDArray[np.float64]:
    """Over all latent elements: their number, and the sums of mean, mean squared and variance, as stored."""
    mean, logvar = np.split(moments.astype(np.float64), 2)
    return np.array([mean.size, mean.sum(), np.square(mean).sum(), np.exp(logvar).sum()])


def measured_scaling_factor(sums: NDArray[np.float64]) -> float:
    """1 / standard deviation of the sampled latents: variance = E[mean^2] + E[variance] - E[mean]^2."""
    mean, mean_squared, variance = sums[1:] / sums[0]
    return float(1 / np.sqrt(mean_squared + variance - mean**2))
