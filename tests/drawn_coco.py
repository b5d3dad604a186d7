"""Small folders in COCO's layout that tests draw themselves, and a recipe of the smallest size for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ifvit.config.loading import merged, parse_overrides, validate_recipe
from ifvit.config.schema import Recipe

WORDS = ("a", "red", "green", "small", "cat", "dog", "bus", "on", "under", "near", "two", "three", "trees", "road")


def draw_image(path: Path, seed: int) -> None:
    """A JPEG of coloured blocks, wider or taller than it is high."""
    random = np.random.default_rng(seed)
    width, height = (90, 64) if seed % 2 else (48, 71)
    blocks = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=92)


def draw_coco(root: Path, split: str = "train", num_images: int = 10) -> Path:
    """Image number k has id 7 + 3 k and 1 + k % 3 captions; the JSON lists both in no order."""
    (root / f"{split}2014").mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(num_images):
        name = f"COCO_{split}2014_{7 + 3 * number:012d}.jpg"
        draw_image(root / f"{split}2014" / name, number)
        images.append({"id": 7 + 3 * number, "file_name": name})
        for caption in range(1 + number % 3):
            words = np.random.default_rng([number, caption]).choice(WORDS, 3 + number % 4)
            annotation_id = 1000 * caption + number
            annotations.append(
                {"id": annotation_id, "image_id": 7 + 3 * number, "caption": " ".join(words).capitalize() + "."}
            )
    content = {"info": {}, "images": images[::-1], "annotations": annotations[::-1]}
    (root / "annotations" / f"captions_{split}2014.json").write_text(json.dumps(content))
    return root


def tiny_values(coco_root: Path, shards_root: Path) -> dict[str, Any]:
    """A recipe for 32 px images, 4 x 4 latents, 12 text tokens, random encoders, shards of 4."""
    return {
        "name": "tiny",
        "data": {
            "coco_root": str(coco_root),
            "shards_root": str(shards_root),
            "samples_per_shard": 4,
            "encode_batch_size": 3,
        },
        "encoders": {"autoencoder": "random-autoencoder-small", "text_encoder": "random-clip-small"},
        "model": {
            "sample_size": 4,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "depth": 2,
            "fusion": {"schedule": "early"},
            "text_hidden_size": 64,
            "num_text_tokens": 12,
        },
        "train": {"global_batch_size": 4, "micro_batch_size": 4, "precision": "fp32"},
    }


def tiny_recipe(coco_root: Path, shards_root: Path, *overrides: str) -> Recipe:
    """`tiny_values` with "a.b=c" overrides, validated."""
    return validate_recipe(merged(tiny_values(coco_root, shards_root), parse_overrides(overrides)), "tiny recipe")


def edit_annotations(root: Path, edit: Any, split: str = "train") -> None:
    """Apply `edit` to the loaded caption file and write it back."""
    file = root / "annotations" / f"captions_{split}2014.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
