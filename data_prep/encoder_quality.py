"""How good trained encoders are, on images they were not trained on."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep.caption_changes import ATTRIBUTES, any_caption, changeable, changed
from data_prep.scene_drawing import SceneOptions, draw_empty_image
from data_prep.scene_set import SceneSet
from ifvit.data.scene_captions import parse_caption
from ifvit.data.scenes import Description
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.clip import Clip

GALLERY = 100  # scenes that differ in color, shape, count or relation
GALLERIES = 20
EMPTY_IMAGES = 200
BATCH_SIZE = 50
SEED = 0


def reconstruction_psnr(autoencoder: Autoencoder, images: NDArray[np.uint8]) -> dict[str, float]:
    """Peak signal-to-noise ratio, dB, of decoded posterior means: of all pixels, mean over images, the worst image.

    `images` is (N, 64, 64, 3).
    """
    errors = []
    for start in range(0, len(images), BATCH_SIZE):
        pixels = torch.from_numpy(images[start : start + BATCH_SIZE]).permute(0, 3, 1, 2).float() / 127.5 - 1
        mean, _ = autoencoder.encode(pixels).chunk(2, dim=1)
        errors.append(((autoencoder.decode(mean) - pixels) / 2).square().mean(dim=(1, 2, 3)))
    squared_errors = torch.cat(errors).double()
    return {
        "images": len(images),
        "psnr": decibel(squared_errors.mean()),
        "mean_psnr": float(np.mean([decibel(error) for error in squared_errors])),
        "worst_psnr": decibel(squared_errors.max()),
    }


def empty_images(options: SceneOptions) -> NDArray[np.uint8]:
    """(EMPTY_IMAGES, 64, 64, 3): backgrounds of `options` without shapes."""
    return np.stack([draw_empty_image(options, random.Random(f"empty {number}")) for number in range(EMPTY_IMAGES)])


def quality_text(quality: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each split of the quality report."""
    lines = []
    for split, measured in quality.items():
        reconstruction = measured["reconstruction"]
        line = f"{split}: {reconstruction['images']} images, reconstructed to {reconstruction['psnr']:.1f} dB"
        if retrieval := measured.get("retrieval"):
            line += f"; their own caption is the nearest of {retrieval['gallery']} for {retrieval['top1']:.1%}"
        lines.append(line)
    return "\n".join(lines)


def decibel(squared_error: torch.Tensor) -> float:
    return float(-10 * torch.log10(squared_error))


def retrieval(clip: Clip, scenes: SceneSet) -> dict[str, Any]:
    """Whether an image's own caption is nearest to it: among 100 of different scenes, and against an almost true one.

    The captions are those that say all they can: count, color and shape of each group and, with two, the relation. What
    no scene has, a relation where all show one group, is left out.
    """
    generator = random.Random(SEED)
    prompts = [full_caption(texts) for texts in scenes.prompts]
    images, texts = clip.image_features(scenes.pixels), clip.text_features(prompts)
    contents = [scene.in_order() for scene in scenes.descriptions]
    hits = []
    for _ in range(GALLERIES):
        order = generator.sample(range(len(scenes)), len(scenes))
        rows = list({contents[row]: row for row in order}.values())[:GALLERY]
        hits += (images[rows] @ texts[rows].T).argmax(dim=1).eq(torch.arange(len(rows))).tolist()
    return {
        "images": len(scenes),
        "gallery": min(GALLERY, len(set(contents))),
        "top1": float(np.mean(hits)),
        "against_almost_true": {
            name: almost_true_rate(clip, images, texts, scenes, name, generator)
            for name in ATTRIBUTES
            if any(name in changeable(scene) for scene in scenes.descriptions)
        },
    }


def full_caption(prompts: tuple[str, ...]) -> str:
    """The first caption that says where its groups stand, if one does."""
    return next((text for text in prompts if (said := parse_caption(text)) and said.relation), prompts[0])


def almost_true_rate(
    clip: Clip, images: torch.Tensor, texts: torch.Tensor, scenes: SceneSet, attribute: str, generator: random.Random
) -> float:
    """Share of images that are nearer to their own caption than to one in which `attribute` is changed."""
    rows = [row for row, scene in enumerate(scenes.descriptions) if attribute in changeable(scene)]
    almost = [said_in_full(changed(scenes.descriptions[row], attribute, generator), generator) for row in rows]
    others = clip.text_features(almost)
    own = (images[rows] * texts[rows]).sum(dim=1)
    return float((own > (images[rows] * others).sum(dim=1)).double().mean())


def said_in_full(scene: Description, generator: random.Random) -> str:
    while True:
        text = any_caption(scene, generator)
        said = parse_caption(text)
        if said is not None and (said.relation is None) == (scene.relation is None):
            return text
