"""One shard: images and captions encoded batch by batch into a tar, its index and its done-mark."""

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.data.coco import CaptionedImage, images_digest
from ifvit.data.images import load_pixels
from ifvit.data.shard_format import FLOAT, IDS, ShardFiles, member_name, member_suffixes, npy_bytes
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.text_encoder import TextEncoder
from ifvit.runtime.files import write_atomically
from ifvit.runtime.progress import Progress

DECODING_THREADS = 4


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
        prompts = json.dumps(self.image.prompts, ensure_ascii=False).encode()
        return [npy_bytes(self.moments), npy_bytes(self.input_ids), *embeds, prompts]


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


class ShardWriter:
    """Writes shards with two encoders; `settings` goes into every done-mark to tell whether a shard still fits."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        text_encoder: TextEncoder,
        image_size: int,
        stores_embeddings: bool,
        batch_size: int,
        settings: dict[str, Any],
    ) -> None:
        self.autoencoder = autoencoder
        self.text_encoder = text_encoder
        self.image_size = image_size
        self.stores_embeddings = stores_embeddings
        self.batch_size = batch_size
        self.settings = settings

    def write(self, files: ShardFiles, images: Sequence[CaptionedImage], progress: Progress) -> dict[str, Any]:
        """The shard of `images`; the done-mark comes last and is returned. Batches never cross shards."""
        files.mark.unlink(missing_ok=True)
        partial = partial_file(files.tar)
        with partial.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                content = ShardContent(tar)
                for batch, pixels in self.decoded_batches(images):
                    for sample in self.encoded(batch, pixels):
                        content.add(sample)
                    progress.advance(len(batch))
            file.flush()
            os.fsync(file.fileno())
        with partial.open("rb") as written:
            tar_sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        partial.replace(files.tar)
        index = content.index_bytes()
        write_atomically(files.index, index)
        mark = {
            "tar": files.tar.name,
            "samples": len(images),
            "prompts": sum(len(image.prompts) for image in images),
            "size": files.tar.stat().st_size,
            "sha256": tar_sha256,
            "index_sha256": hashlib.sha256(index).hexdigest(),
            "images_sha256": images_digest(images),
            "encode_batch_size": self.batch_size,
            "latent_sums": content.latent_sums.tolist(),
            "settings": self.settings,
        }
        write_atomically(files.mark, json.dumps(mark, indent=1).encode())
        return mark

    def decoded_batches(self, images: Sequence[CaptionedImage]) -> Iterator[tuple[Sequence[CaptionedImage], Tensor]]:
        """Batches with their pixels (B, 3, H, W); threads decode the next batch while this one is encoded."""
        batches = [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            ahead: list[Future[Tensor]] = []
            for number, batch in enumerate(batches):
                ahead = ahead or [pool.submit(load_pixels, image, self.image_size) for image in batch]
                following = batches[number + 1] if number + 1 < len(batches) else []
                decoding, ahead = ahead, [pool.submit(load_pixels, image, self.image_size) for image in following]
                yield batch, torch.stack([future.result() for future in decoding])

    def encoded(self, images: Sequence[CaptionedImage], pixels: Tensor) -> Iterator[EncodedSample]:
        moments = self.autoencoder.encode(pixels).half().cpu().numpy().astype(FLOAT)
        input_ids = self.text_encoder.tokenize([prompt for image in images for prompt in image.prompts])
        stored_ids = input_ids.numpy().astype(IDS)
        embeds = self.text_encoder.encode(input_ids).half().cpu().numpy() if self.stores_embeddings else None
        start = 0
        for image, image_moments in zip(images, moments, strict=True):
            stop = start + len(image.prompts)
            image_embeds = None if embeds is None else embeds[start:stop].astype(FLOAT)
            if not all(np.isfinite(values).all() for values in (image_moments, image_embeds) if values is not None):
                raise UserError(f"image {image.id}: {image.path}: its encoding does not fit into float16")
            yield EncodedSample(image, image_moments, stored_ids[start:stop], image_embeds)
            start = stop


def partial_file(path: Path) -> Path:
    """Where `path` is written until it is whole; the folder's lock keeps other writers away."""
    return path.with_name(f".{path.name}.partial")


def latent_sums(moments: NDArray[np.float16]) -> NDArray[np.float64]:
    """Over all latent elements: their number, and the sums of mean, mean squared and variance, as stored."""
    mean, logvar = np.split(moments.astype(np.float64), 2)
    return np.array([mean.size, mean.sum(), np.square(mean).sum(), np.exp(logvar).sum()])


def measured_scaling_factor(sums: NDArray[np.float64]) -> float:
    """1 / standard deviation of the sampled latents: variance = E[mean^2] + E[variance] - E[mean]^2."""
    mean, mean_squared, variance = sums[1:] / sums[0]
    return float(1 / np.sqrt(mean_squared + variance - mean**2))
