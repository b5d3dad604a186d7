"""The index of a finished set of shards: what the done-marks say, summed up."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.bad_samples import Tally, check_share
from data_prep.listing import Listing
from data_prep.token_frame import TokenFrame
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.shard_content import measured_scaling_factor
from ifvit.data.shard_format import FLOAT, SampleShapes
from ifvit.data.shard_index import write_shard_index
from ifvit.encoders.loading import Encoders


def write_index(
    folder: Path, recipe: Recipe, listing: Listing, marks: Iterable[Mapping[str, Any]], encoders: Encoders
) -> None:
    """The null embedding, samples.index and, last of all, index.json. No scaling factor: the measured one.

    Raises UserError where more samples are quarantined than the recipe allows, or none is left.
    """
    shards, bad, latent_sums = [], Tally(), np.zeros(4)
    for mark in marks:
        shards.append(mark)
        latent_sums += mark["latent_sums"]
        for entry in mark["quarantined"]:
            bad.add(entry["reason"], entry["id"])
    check_share(bad, listing.num_samples, recipe.data.max_bad_share, "samples")
    if not any(shard["samples"] for shard in shards):
        raise UserError(f"{folder}: none of the {listing.num_samples:,} samples can be used: {bad}")
    autoencoder, text_encoder = encoders.autoencoder, encoders.text_encoder
    measured = measured_scaling_factor(latent_sums)
    chosen = recipe.encoders.scaling_factor
    shapes = SampleShapes(
        autoencoder.latent_channels, recipe.model.sample_size, recipe.model.num_text_tokens, text_encoder.hidden_size
    )
    null_prompt_embeds = text_encoder.encode_prompts([""])[0].half().cpu().numpy().astype(FLOAT)
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
    write_shard_index(folder, shards, shapes, null_prompt_embeds, described)
