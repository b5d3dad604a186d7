"""The index of a finished set of shards, and the null embedding beside it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.bad_samples import Tally, check_share
from data_prep.listing import Listing
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.shard_content import measured_scaling_factor
from ifvit.data.shard_format import (
    FLOAT,
    FORMAT_VERSION,
    INDEX_FILE,
    NULL_FILE,
    SAMPLES_FILE,
    SampleShapes,
    ShardFiles,
    npy_bytes,
)
from ifvit.encoders.loading import Encoders
from ifvit.runtime.files import atomic_file, write_atomically

PER_SHARD = ("tar", "samples", "prompts", "size", "sha256", "index_sha256")


def write_index(
    folder: Path, recipe: Recipe, listing: Listing, marks: Iterable[Mapping[str, Any]], encoders: Encoders
) -> None:
    """The null embedding, samples.index and, last of all, index.json. No scaling factor: the measured one.

    Raises UserError where more samples are quarantined than the recipe allows, or none is left.
    """
    shards, bad, latent_sums = [], Tally(), np.zeros(4)
    for mark in marks:
        shards.append({name: mark[name] for name in PER_SHARD})
        latent_sums += mark["latent_sums"]
        for entry in mark["quarantined"]:
            bad.add(entry["reason"], entry["id"])
    check_share(bad, listing.num_samples, recipe.data.max_bad_share, "samples")
    totals = {name: sum(shard[name] for shard in shards) for name in ("samples", "prompts", "size")}
    if not totals["samples"]:
        raise UserError(f"{folder}: none of the {listing.num_samples:,} samples can be used: {bad}")
    autoencoder, text_encoder = encoders.autoencoder, encoders.text_encoder
    null_prompt_embeds = npy_bytes(text_encoder.encode_prompts([""])[0].half().cpu().numpy().astype(FLOAT))
    write_atomically(folder / NULL_FILE, null_prompt_embeds)
    measured = measured_scaling_factor(latent_sums)
    chosen = recipe.encoders.scaling_factor
    shapes = SampleShapes(
        autoencoder.latent_channels, recipe.model.sample_size, recipe.model.num_text_tokens, text_encoder.hidden_size
    )
    index = {
        "format_version": FORMAT_VERSION,
        "split": recipe.data.split,
        "text_storage": recipe.data.text_storage,
        "shapes": vars(shapes),
        **totals,
        "listed_samples": listing.num_samples,
        "quarantined": bad.as_json(),
        "dropped_captions": listing.dropped_captions.as_json(),
        "scaling_factor": measured if chosen is None else chosen,
        "measured_scaling_factor": measured,
        "autoencoder": autoencoder.identity,
        "text_encoder": text_encoder.identity,
        "null_prompt_embeds_sha256": hashlib.sha256(null_prompt_embeds).hexdigest(),
        "shards": shards,
    }
    join_files([ShardFiles(folder, number).index for number in range(len(shards))], folder / SAMPLES_FILE)
    write_atomically(folder / INDEX_FILE, json.dumps(index, indent=1).encode())


def join_files(parts: Iterable[Path], whole: Path) -> None:
    """`whole`, which appears when it is there, as `parts` one after the other."""
    with atomic_file(whole) as file:
        for part in parts:
            file.write(part.read_bytes())
