"""The folder that shards go into: what is finished already, and the index of the whole."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.shard_writer import measured_scaling_factor
from ifvit.config.errors import UserError
from ifvit.data.coco import CaptionedImage, images_digest
from ifvit.data.shard_format import FLOAT, FORMAT_VERSION, INDEX_FILE, NULL_FILE, SampleShapes, ShardFiles, npy_bytes
from ifvit.encoders.text_encoder import TextEncoder
from ifvit.runtime.files import write_atomically


def remove_partials(folder: Path) -> None:
    """Remove what a writer that was killed left unfinished. Only for the holder of the folder's lock."""
    for partial in folder.glob(".*.partial"):
        partial.unlink()


def finished_marks(
    folder: Path, shards: Sequence[Sequence[CaptionedImage]], settings: Mapping[str, Any]
) -> list[dict[str, Any] | None]:
    """The done-mark of each shard, None where it must be made. Raises UserError where the folder holds other shards."""
    marks = [finished_mark(ShardFiles(folder, number), images, settings) for number, images in enumerate(shards)]
    expected = {ShardFiles(folder, number).tar.name for number in range(len(shards))}
    if extra := sorted(path for path in folder.glob("*.tar") if path.name not in expected):
        raise UserError(
            f"{extra[0]}: is none of the {len(shards)} shards needed here; delete {folder} or use another --out"
        )
    return marks


def finished_mark(
    files: ShardFiles, images: Sequence[CaptionedImage], settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    try:
        mark = json.loads(files.mark.read_bytes())
        found, digest = mark["settings"], mark["images_sha256"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{files.mark}: is damaged; delete it, and the shard will be made again") from None
    for field, value in settings.items():
        if found.get(field) != value:
            raise UserError(
                f"{field}: is {shown(value)}, but {files.tar} was made with {shown(found.get(field))}; "
                f"delete {files.folder} or use another --out"
            )
    if digest != images_digest(images):
        raise UserError(
            f"data.coco_root: {files.tar} was made from other images or captions than are listed now; "
            f"delete {files.folder} or use another --out"
        )
    is_whole = files.tar.is_file() and files.tar.stat().st_size == mark["size"] and files.index.is_file()
    return mark if is_whole and hashlib.sha256(files.index.read_bytes()).hexdigest() == mark["index_sha256"] else None


def shown(value: Any) -> str:
    is_digest = isinstance(value, str) and len(value) == 64
    return f"the one with sha256 {value[:12]}" if is_digest else str(value)


def write_index(
    folder: Path,
    marks: Sequence[Mapping[str, Any]],
    split: str,
    text_storage: str,
    shapes: SampleShapes,
    scaling_factor: float | None,
    autoencoder_identity: Mapping[str, Any],
    text_encoder: TextEncoder,
) -> dict[str, Any]:
    """The null embedding and, last of all, index.json, which is returned. `scaling_factor` None: the measured one."""
    null_prompt_embeds = npy_bytes(text_encoder.encode_prompts([""])[0].half().cpu().numpy().astype(FLOAT))
    write_atomically(folder / NULL_FILE, null_prompt_embeds)
    measured = measured_scaling_factor(np.sum([mark["latent_sums"] for mark in marks], axis=0))
    per_shard = ("tar", "samples", "prompts", "size", "sha256", "index_sha256")
    index = {
        "format_version": FORMAT_VERSION,
        "split": split,
        "text_storage": text_storage,
        "shapes": vars(shapes),
        "samples": sum(mark["samples"] for mark in marks),
        "prompts": sum(mark["prompts"] for mark in marks),
        "size": sum(mark["size"] for mark in marks),
        "scaling_factor": measured if scaling_factor is None else scaling_factor,
        "measured_scaling_factor": measured,
        "autoencoder": dict(autoencoder_identity),
        "text_encoder": dict(text_encoder.identity),
        "null_prompt_embeds_sha256": hashlib.sha256(null_prompt_embeds).hexdigest(),
        "shards": [{name: mark[name] for name in per_shard} for mark in marks],
    }
    write_atomically(folder / INDEX_FILE, json.dumps(index, indent=1).encode())
    return index
