"""One shard: images and captions encoded batch by batch into a tar, its index and its done-mark."""

import hashlib
import socket
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_prep.bad_samples import BadLimit, Quarantine
from data_prep.decoding import decoded_batches
from data_prep.listed_sample import ListedSample
from ifvit.data.coco import CaptionedImage
from ifvit.data.images import BadImageError
from ifvit.data.sealed_json import sealed_json
from ifvit.data.shard_content import ShardContent, StoredSample
from ifvit.data.shard_format import FLOAT, IDS, INDEX_FILE, ShardFiles
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.text_encoder import TextEncoder
from ifvit.runtime.files import atomic_file, write_atomically

CAPTIONS_PER_CALL = 128  # an image may have any number of captions; memory must not depend on that


@dataclass(frozen=True)
class ShardUnit:
    """One shard to make: its files, its share of the listing, and the folder that listed paths are below."""

    files: ShardFiles
    samples: Sequence[ListedSample]
    listing_sha256: str
    root: Path


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
        # What the last bits of an encoding also depend on.
        self.made_with = {"device": text_encoder.device.type} | {
            name: version(name) for name in ("torch", "diffusers", "transformers")
        }

    def write(self, unit: ShardUnit, limit: BadLimit, advance: Callable[[int], object]) -> None:
        """The shard of `unit`; the done-mark comes last. Only for the holder of its claim.

        Batches are parts of the listing and never cross shards. `advance` hears how many listed samples are dealt with.
        Raises UserError where bad samples exceed `limit`; there is no done-mark then.
        """
        started = time.monotonic()
        files = unit.files
        (files.folder / INDEX_FILE).unlink(missing_ok=True)  # before a shard that it describes is another
        files.mark.unlink(missing_ok=True)
        remove_parts(files.tar)
        quarantine = Quarantine(limit)
        with atomic_file(files.tar) as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                content = ShardContent(tar)
                self.fill(content, unit, quarantine, advance)
            size = file.tell()
            file.seek(0)
            tar_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        index = content.index_bytes()
        write_atomically(files.index, index)
        mark = {
            "tar": files.tar.name,
            "samples": len(content.records),
            "prompts": content.num_prompts,
            "size": size,
            "sha256": tar_sha256,
            "index_sha256": hashlib.sha256(index).hexdigest(),
            "listing_sha256": unit.listing_sha256,
            "quarantined": sorted(quarantine.entries, key=lambda entry: entry["id"]),
            "dropped_captions": dict(sorted(sum((Counter(each.dropped) for each in unit.samples), Counter()).items())),
            "latent_sums": content.latent_sums.tolist(),
            "settings": self.settings,
            "autoencoder": self.autoencoder.identity,
            "text_encoder": self.text_encoder.identity,
            "made_with": self.made_with,
            "seconds": round(time.monotonic() - started, 3),
        }
        write_atomically(files.mark, sealed_json(mark))

    def fill(
        self, content: ShardContent, unit: ShardUnit, quarantine: Quarantine, advance: Callable[[int], object]
    ) -> None:
        for listed, decoded in decoded_batches(unit.samples, unit.root, self.image_size, self.batch_size):
            good: list[ListedSample] = []
            pixels: list[Tensor] = []
            for sample, outcome in zip(listed, decoded, strict=True):
                if isinstance(outcome, Tensor):
                    good.append(sample)
                    pixels.append(outcome)
                elif isinstance(outcome, BadImageError):
                    quarantine.add(sample, outcome.reason, outcome.detail)
                else:
                    quarantine.add(sample, str(sample.fault), "found when the samples were listed")
            if good:
                images = [sample.captioned_image(unit.root) for sample in good]
                for sample, encoded in zip(good, self.encoded(images, torch.stack(pixels)), strict=True):
                    if encoded.is_finite:
                        content.add(encoded)
                    else:
                        quarantine.add(sample, "not finite", "its encoding does not fit into float16")
            advance(len(listed))

    def encoded(self, images: Sequence[CaptionedImage], pixels: Tensor) -> Iterator[StoredSample]:
        moments = self.autoencoder.encode(pixels).half().cpu().numpy().astype(FLOAT)
        input_ids = self.text_encoder.tokenize([prompt for image in images for prompt in image.prompts])
        stored_ids = input_ids.numpy().astype(IDS)
        embeds = None
        if self.stores_embeddings:
            parts = [self.text_encoder.encode(part).half().cpu() for part in input_ids.split(CAPTIONS_PER_CALL)]
            embeds = torch.cat(parts).numpy()
        start = 0
        for image, image_moments in zip(images, moments, strict=True):
            stop = start + len(image.prompts)
            image_embeds = None if embeds is None else embeds[start:stop].astype(FLOAT)
            yield StoredSample(image.id, image.prompts, image_moments, stored_ids[start:stop], image_embeds)
            start = stop


def remove_parts(path: Path) -> None:
    """What killed processes of this machine left of `path`. On others somebody may be writing it: locks can fail."""
    for part in path.parent.glob(f".{path.name}.tmp*.{socket.gethostname()}"):
        part.unlink(missing_ok=True)
