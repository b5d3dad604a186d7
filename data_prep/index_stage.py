"""The last stage: the index of a finished set of shards, which sums up what the done-marks say."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.bad_samples import Tally, check_share, marks_to_delete
from data_prep.listing import Listing
from data_prep.token_frame import TokenFrame
from ifvit.config.errors import UserError, printable
from ifvit.config.schema import Recipe
from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_content import measured_scaling_factor
from ifvit.data.shard_format import FLOAT, INDEX_FILE, NULL_FILE, SAMPLES_FILE, SampleShapes, ShardFiles
from ifvit.data.shard_index import PER_SHARD, write_shard_index
from ifvit.encoders.loading import Encoders


def write_index(
    folder: Path, recipe: Recipe, listing: Listing, marks: Sequence[Mapping[str, Any]], encoders: Encoders
) -> None:
    """The null embedding, samples.index and, last of all, index.json, unless they are there and agree with `marks`.

    No scaling factor: the measured one. Says where shards were made with different versions. Raises UserError where
    more samples are quarantined than the recipe allows, or none is left.
    """
    bad, latent_sums = Tally(), np.zeros(4)
    for mark in marks:
        latent_sums += mark["latent_sums"]
        for entry in mark["quarantined"]:
            bad.add(entry["reason"], entry["id"], entry["image"])
    check_share(bad, listing.num_samples, recipe.data.max_bad_share, "samples", marks=marks_to_delete(marks))
    if not any(mark["samples"] for mark in marks):
        raise UserError(f"{folder}: none of the {listing.num_samples:,} samples can be used: {bad}")
    autoencoder, text_encoder = encoders.autoencoder, encoders.text_encoder
    measured = measured_scaling_factor(latent_sums)
    chosen = recipe.encoders.scaling_factor
    described = {
        "split": recipe.data.split,
        "text_storage": recipe.data.text_storage,
        "listed_samples": listing.num_samples,
        "quarantined": bad.as_json(),
        "dropped_captions": listing.dropped_captions.as_json(),
        "scaling_factor": measured if chosen is None else chosen,
        "measured_scaling_factor": measured,
        "autoencoder": autoencoder.identity,
        "text_encoder": text_encoder.identity,
        "tokens": vars(TokenFrame.of(text_encoder.tokenizer)),
    }
    if is_indexed(folder, marks, described):
        return
    refuse_damaged(folder, marks)
    shapes = SampleShapes(
        autoencoder.latent_channels, recipe.model.sample_size, recipe.model.num_text_tokens, text_encoder.hidden_size
    )
    null_prompt_embeds = text_encoder.encode_prompts([""])[0].half().cpu().numpy().astype(FLOAT)
    write_shard_index(folder, marks, shapes, null_prompt_embeds, described)
    print_differences(folder, marks)


def is_indexed(folder: Path, marks: Sequence[Mapping[str, Any]], described: Mapping[str, Any]) -> bool:
    """Whether index.json is as `marks` and `described` say, and the files beside it are whole."""
    try:
        index = unsealed((folder / INDEX_FILE).read_bytes())
        null_sha256 = hashlib.sha256((folder / NULL_FILE).read_bytes()).hexdigest()
        size = (folder / SAMPLES_FILE).stat().st_size
    except (FileNotFoundError, ValueError):
        return False
    expected = json.loads(json.dumps(described)) | {
        "null_prompt_embeds_sha256": null_sha256,
        "shards": [{name: mark[name] for name in PER_SHARD} for mark in marks],
    }
    sizes = sum(ShardFiles(folder, number).index.stat().st_size for number in range(len(marks)))
    return size == sizes and all(index.get(name) == value for name, value in expected.items())


def refuse_damaged(folder: Path, marks: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError where a shard's index file, which is about to go into samples.index, is not as its mark says."""
    for number, mark in enumerate(marks):
        path = ShardFiles(folder, number).index
        if hashlib.sha256(path.read_bytes()).hexdigest() != mark["index_sha256"]:
            raise UserError(f"{path}: is damaged (its sha256 differs); delete it and run the same command again")


def print_differences(folder: Path, marks: Sequence[Mapping[str, Any]]) -> None:
    """One line where not all shards were made with the same versions on the same kind of device."""
    made = Counter(", ".join(f"{name} {value}" for name, value in mark["made_with"].items()) for mark in marks)
    if len(made) > 1:
        parts = "; ".join(f"{count:,} with {what}" for what, count in made.most_common())
        print(f"note: the shards in {printable(str(folder))} may differ in last bits: {parts}", flush=True)
