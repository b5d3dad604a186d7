"""Encodes a COCO folder into shards of latents and text, as a recipe says.

Reads {data.coco_root}/annotations/captions_{split}2014.json and the images in {split}2014/, encodes each image with the
recipe's autoencoder and all its captions with its text encoder, and writes WebDataset tars, the null embedding and an
index to {data.shards_root}/{split}/. A second start skips the shards that are finished.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.folder_lock import only_writer
from ifvit.config.arguments import add_recipe_arguments
from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe
from ifvit.data.coco import CaptionedImage, read_coco

if TYPE_CHECKING:
    from ifvit.encoders.autoencoder import Autoencoder
    from ifvit.encoders.text_encoder import TextEncoder

MAX_TOKENS = 65536


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--split", metavar="NAME", help="instead of data.split: train, val, ...")
    parser.add_argument("--out", metavar="DIR", help="instead of data.shards_root; shards go to DIR/{split}")


def run(args: argparse.Namespace) -> None:
    overrides = list(args.overrides)
    for field, value in (("data.split", args.split), ("data.shards_root", args.out)):
        if value is not None:
            overrides.append(f"{field}={json.dumps(value, ensure_ascii=False)}")  # quoted: text, whatever it looks like
    make_shards(load_recipe(args.recipe, overrides))


def make_shards(recipe: Recipe) -> dict[str, Any]:
    """Writes what is missing of {data.shards_root}/{data.split}, prints a summary, returns the index."""
    images = read_coco(recipe.data.coco_root, recipe.data.split)  # before the heavy imports: most mistakes show here

    from data_prep.shard_folder import finished_marks, remove_partials, write_index
    from data_prep.shard_writer import ShardWriter
    from ifvit.data.images import refuse_bombs
    from ifvit.data.shard_format import SampleShapes, ShardFiles
    from ifvit.encoders.loading import load_encoders
    from ifvit.runtime.distributed import Ranks, training_device
    from ifvit.runtime.progress import Progress

    refuse_bombs()
    device = training_device(Ranks())
    encoders = load_encoders(recipe, device)
    autoencoder, text_encoder = encoders.autoencoder, encoders.text_encoder
    if (num_tokens := len(text_encoder.tokenizer)) > MAX_TOKENS:
        raise UserError(
            f"encoders.tokenizer: has {num_tokens} tokens, shards store ids as uint16: at most {MAX_TOKENS}"
        )
    folder = Path(recipe.data.shards_root) / recipe.data.split
    settings = shard_settings(recipe, autoencoder, text_encoder)
    writer = ShardWriter(
        autoencoder,
        text_encoder,
        image_size=recipe.model.sample_size * autoencoder.factor,
        stores_embeddings=recipe.data.text_storage == "embeddings",
        batch_size=recipe.data.encode_batch_size,
        settings=settings,
    )
    shards = split_into_shards(images, recipe.data.samples_per_shard)
    with only_writer(folder, "data.shards_root"):
        remove_partials(folder)
        marks = finished_marks(folder, shards, settings)
        num_skipped = sum(mark is not None for mark in marks)
        done = sum(mark["samples"] for mark in marks if mark is not None)
        with Progress(len(images), "shards", unit="images", initial=done) as progress:
            written = [
                mark or writer.write(ShardFiles(folder, number), shard, progress)
                for number, (mark, shard) in enumerate(zip(marks, shards, strict=True))
            ]
        index = write_index(
            folder,
            written,
            split=recipe.data.split,
            text_storage=recipe.data.text_storage,
            shapes=SampleShapes(
                autoencoder.latent_channels,
                recipe.model.sample_size,
                recipe.model.num_text_tokens,
                text_encoder.hidden_size,
            ),
            scaling_factor=recipe.encoders.scaling_factor,
            autoencoder_identity=autoencoder.identity,
            text_encoder=text_encoder,
        )
    print_summary(folder, index, num_skipped)
    return index


def split_into_shards(images: list[CaptionedImage], samples_per_shard: int) -> list[list[CaptionedImage]]:
    return [images[start : start + samples_per_shard] for start in range(0, len(images), samples_per_shard)]


def shard_settings(recipe: Recipe, autoencoder: "Autoencoder", text_encoder: "TextEncoder") -> dict[str, Any]:
    """What a shard's content depends on, by the field that chooses it; encoders by the digest of their weights."""
    return {
        "data.split": recipe.data.split,
        "data.text_storage": recipe.data.text_storage,
        "data.samples_per_shard": recipe.data.samples_per_shard,
        "model.sample_size": recipe.model.sample_size,
        "model.num_text_tokens": recipe.model.num_text_tokens,
        "encoders.autoencoder": autoencoder.identity["sha256"],
        "encoders.text_encoder": text_encoder.identity["sha256"],
        "encoders.tokenizer": text_encoder.identity["tokenizer_sha256"],
    }


def print_summary(folder: Path, index: dict[str, Any], num_skipped: int) -> None:
    skipped = f" ({num_skipped} were there already)" if num_skipped else ""
    print(
        f"{folder}: {len(index['shards'])} shards{skipped}, {index['samples']} samples, {index['prompts']} prompts, "
        f"{index['size']:,} bytes"
    )
    used, measured = index["scaling_factor"], index["measured_scaling_factor"]
    source = "measured" if used == measured else f"the recipe's, measured here: {measured:.5f}"
    print(f"scaling_factor: {used:.5f} ({source})")
    for identity in (index["autoencoder"], index["text_encoder"]):
        if identity["random"]:
            print(f"note: {identity['name']} has random weights: these shards check the machinery, not quality")
