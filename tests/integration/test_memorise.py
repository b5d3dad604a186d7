"""Eight real images, one caption each, memorised and asked for again through the real commands.

A sample that is its caption's own training image and no other shows conditioning, the timestep shift, the scale factor,
guidance, the solver, the averaged weights and the decoder all right at once.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ifvit.data.centre_square import centre_square
from ifvit.encoders.autoencoder import Autoencoder

CELLS = {
    "concat_early": ["model.conditioning=concat", "model.fusion.schedule=early"],
    "concat_intermediate": ["model.conditioning=concat"],
    "cross_early": ["model.conditioning=cross_attention", "model.fusion.schedule=early"],
    "cross_intermediate": ["model.conditioning=cross_attention"],
}
SIZE = 64  # pixels
CLEARLY = 4.0  # the nearest other image is at least this many times farther than the own one, in squared distance


def command(*arguments: str) -> None:
    # All cores for one cell, or shared between the cells that pytest-xdist runs at once.
    shared = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("MEMORISE_THREADS", str(shared))}
    done = subprocess.run([sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def eight_images(test_data: Path, root: Path) -> list[tuple[str, Path]]:
    """A COCO folder of eight images and one caption each; (caption, image file) in the order of the ids."""
    source = test_data / "coco_mini"
    listing = json.loads((source / "annotations/captions_extra2014.json").read_text())
    images = sorted(listing["images"], key=lambda image: image["id"])[:8]
    captions = {annotation["image_id"]: annotation for annotation in listing["annotations"]}
    (root / "annotations").mkdir(parents=True)
    (root / "eight2014").mkdir()
    for image in images:
        shutil.copy(source / "extra2014" / image["file_name"], root / "eight2014")
    chosen = {"images": images, "annotations": [captions[image["id"]] for image in images]}
    (root / "annotations/captions_eight2014.json").write_text(json.dumps(chosen))
    return [(captions[image["id"]]["caption"].strip(), root / "eight2014" / image["file_name"]) for image in images]


@pytest.mark.coco
@pytest.mark.memorise
@pytest.mark.parametrize("cell", CELLS)
def test_each_caption_gives_its_own_image(cell: str, test_data: Path, repository: Path, tmp_path: Path) -> None:
    pairs = eight_images(test_data, tmp_path / "coco")
    recipe = str(repository / "recipes/coco_mini.yaml")
    overrides = [
        f"name={cell}",
        f"data.coco_root={tmp_path / 'coco'}",
        f"data.shards_root={tmp_path / 'shards'}",
        "data.split=eight",
        f"encoders.autoencoder={test_data / 'vae_f8c4'}",
        f"encoders.tokenizer={test_data / 'clip_tokenizer'}",
        "model.num_text_tokens=16",
        f"runtime.runs_root={tmp_path / 'runs'}",
        "sampling.prompts=[]",
        "checkpoint.every_steps=500",
        "tracking.mlflow=false",
        "train.max_steps=1200",
        *CELLS[cell],
    ]
    sets = [part for override in overrides for part in ("--set", override)]
    command("data_prep", "shards", recipe, *sets)
    command("ifvit", "train", recipe, *sets)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{caption}\n" for caption, _ in pairs))
    out = tmp_path / "samples"
    command("ifvit", "sample", str(tmp_path / "runs" / cell), "--prompts-file", str(prompts), "--out", str(out))

    files = json.loads((out / "samples.json").read_text())["images"]
    samples = [np.asarray(Image.open(out / entry["file"])) for entry in files]
    autoencoder = Autoencoder.load(str(test_data / "vae_f8c4"))
    originals = [np.asarray(centre_square(Image.open(file), SIZE)) for _, file in pairs]
    sampled, trained = latents(autoencoder, samples), latents(autoencoder, originals)
    distances = torch.cdist(sampled.flatten(1), trained.flatten(1)).square().numpy()  # (sample, training image)
    own = distances.diagonal().copy()
    np.fill_diagonal(distances, np.inf)
    ratios = distances.min(axis=1) / own
    print(f"{cell}: nearest other / own squared distance {np.sort(ratios).round(1)}")
    assert (ratios > CLEARLY).all()


def latents(autoencoder: Autoencoder, images: list[np.ndarray]) -> torch.Tensor:
    """Images (height, width, 3) uint8 to latent means (N, C, h, w)."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
    return autoencoder.encode(pixels).chunk(2, dim=1)[0]
