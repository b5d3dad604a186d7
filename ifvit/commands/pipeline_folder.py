"""The parts of an exported model that other programs know: scheduler, autoencoder, text encoder, in diffusers' layout.

An encoder is there as a copy, or as reference.json, which says where it was and its digests. The backbone itself is
the model folder's own config.json and model.safetensors.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifvit.config.schema import Recipe
from ifvit.diffusion.solver import make_scheduler
from ifvit.encoders.loading import Encoders
from ifvit.encoders.locate import RANDOM_MARK

INDEX_FILE = "model_index.json"
REFERENCE_FILE = "reference.json"
SCHEDULER_FOLDER = "scheduler"
ENCODER_FOLDERS = {"autoencoder": "vae", "text_encoder": "text_encoder", "tokenizer": "tokenizer"}  # by recipe field
ENCODER_CLASSES = {
    "autoencoder": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}


def write_pipeline(
    folder: Path, recipe: Recipe, identities: Mapping[str, Mapping[str, Any]], encoders: Encoders | None
) -> None:
    """Add scheduler, encoders and model_index.json to the model folder `folder`.

    `identities` are those of the encoders it was trained with; `encoders` are these to be copied, or None.
    """
    scheduler = make_scheduler(recipe.diffusion, recipe.sampling.solver)
    scheduler.save_pretrained(folder / SCHEDULER_FOLDER)
    if encoders is None:
        write_references(folder, identities)
    else:
        write_copies(folder, encoders)
    absent = (None, None)  # diffusers' way to name a part that is not in the folder
    index = {
        "_class_name": "IFUViTPipeline",
        "_diffusers_version": importlib.metadata.version("diffusers"),
        SCHEDULER_FOLDER: ("diffusers", type(scheduler).__name__),
        **{ENCODER_FOLDERS[field]: ENCODER_CLASSES[field] if encoders else absent for field in ENCODER_FOLDERS},
    }
    write_json(folder / INDEX_FILE, index)


def write_references(folder: Path, identities: Mapping[str, Mapping[str, Any]]) -> None:
    autoencoder, text_encoder = identities["autoencoder"], identities["text_encoder"]
    references = {
        "autoencoder": (autoencoder["name"], autoencoder["sha256"]),
        "text_encoder": (text_encoder["name"], text_encoder["sha256"]),
        "tokenizer": (text_encoder["tokenizer"], text_encoder["tokenizer_sha256"]),
    }
    for field, (name, sha256) in references.items():
        path = Path(name).expanduser()
        location = str(path.absolute()) if path.is_dir() else name
        (folder / ENCODER_FOLDERS[field]).mkdir()
        write_json(folder / ENCODER_FOLDERS[field] / REFERENCE_FILE, {"location": location, "sha256": sha256})


def write_copies(folder: Path, encoders: Encoders) -> None:
    copies = {
        "autoencoder": (encoders.autoencoder.model, encoders.autoencoder.identity["random"]),
        "text_encoder": (encoders.text_encoder.model, encoders.text_encoder.identity["random"]),
        "tokenizer": (encoders.text_encoder.tokenizer, False),
    }
    for field, (part, is_random) in copies.items():
        part.save_pretrained(folder / ENCODER_FOLDERS[field])
        if is_random:
            (folder / ENCODER_FOLDERS[field] / RANDOM_MARK).write_text("Random weights, not trained.\n")


def copied_encoders(folder: Path) -> dict[str, str]:
    """By field of the recipe's section `encoders`, the copies that lie in the model folder `folder`."""
    paths = {field: folder / name for field, name in ENCODER_FOLDERS.items()}
    return {
        field: str(path) for field, path in paths.items() if path.is_dir() and not (path / REFERENCE_FILE).is_file()
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
