"""What goes into a shard: encoded samples as members of its tar, and the index of where they lie."""

import io
import tarfile
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays

from data_prep.listed_sample import prompts_json
from ifvit.data.coco import CaptionedImage
from ifvit.data.shard_format import member_name, member_suffixes, npy_bytes


@dataclass(frozen=True)
class EncodedSample:
    """What is stored of one image. N captions, T text tokens, X text width."""

    image: CaptionedImage
    moments: NDArray[np.float16]  # (2C, H, W)
    input_ids: NDArray[np.uint16]  # (N, T)
    prompt_embeds: NDArray[np.float16] | None  # (N, T, X)

    def payloads(self) -> list[bytes]:
        """The members' contents, in the order of `member_suffixes`."""
        embeds = [] if self.prompt_embeds is None else [npy_bytes(embeds) for embeds in self.prompt_embeds]
        return [npy_bytes(self.moments), npy_bytes(self.input_ids), *embeds, prompts_json(self.image.prompts)]

    @property
    def is_finite(self) -> bool:
        arrays = [self.moments] if self.prompt_embeds is None else [self.moments, self.prompt_embeds]
        return all(bool(np.isfinite(array).all()) for array in arrays)


@dataclass
class ShardContent:
    """The tar as it grows, and what is noted about it."""

    tar: tarfile.TarFile
    columns: dict[str, list[int]] = field(
        default_factory=lambda: {
            name: [] for name in ("ids", "offsets", "num_prompts", "prompts_sizes", "crc_starts", "member_crc32")
        }
    )
    latent_sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))

    def add(self, sample: EncodedSample) -> None:
        payloads = sample.payloads()
        num_prompts = len(sample.image.prompts)
        columns = self.columns
        columns["ids"].append(sample.image.id)
        columns["offsets"].append(self.tar.offset)
        columns["num_prompts"].append(num_prompts)
        columns["prompts_sizes"].append(len(payloads[-1]))
        columns["crc_starts"].append(len(columns["member_crc32"]))
        columns["member_crc32"] += [zlib.crc32(payload) for payload in payloads]
        suffixes = member_suffixes(num_prompts, sample.prompt_embeds is not None)
        for suffix, payload in zip(suffixes, payloads, strict=True):
            member = tarfile.TarInfo(member_name(sample.image.id, suffix))  # mtime, uid and gid are 0
            member.size = len(payload)
            self.tar.addfile(member, io.BytesIO(payload))
        self.latent_sums += latent_sums(sample.moments)

    def index_bytes(self) -> bytes:
        arrays = {name: np.array(values, np.int64) for name, values in self.columns.items()}
        arrays["member_crc32"] = arrays["member_crc32"].astype(np.uint32)
        return save_arrays(arrays)


def latent_sums(moments: NDArray[np.float16]) -> NDArray[np.float64]:
    """Over all latent elements: their number, and the sums of mean, mean squared and variance, as stored."""
    mean, logvar = np.split(moments.astype(np.float64), 2)
    return np.array([mean.size, mean.sum(), np.square(mean).sum(), np.exp(logvar).sum()])


def measured_scaling_factor(sums: NDArray[np.float64]) -> float:
    """1 / standard deviation of the sampled latents: variance = E[mean^2] + E[variance] - E[mean]^2."""
    mean, mean_squared, variance = sums[1:] / sums[0]
    return float(1 / np.sqrt(mean_squared + variance - mean**2))
