"""Trains the bundled CLIP on scenes: image and text towers of width 128 that tell counts, colors, shapes and relations.

Contrastive, as CLIP (arXiv 2103.00020), with almost true captions among the wrong ones (as NegCLIP, arXiv 2210.01936),
and with heads that read attributes off the embeddings and off the image's patches. These make minutes of training
enough; they are not part of the model.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data_prep.autoencoder_training import rate_factor
from data_prep.caption_changes import any_caption, changeable, changed
from data_prep.caption_tokenizer import save_caption_tokenizer
from data_prep.running_average import RunningAverage
from data_prep.scene_attributes import AttributeHeads, agree, patch_targets
from data_prep.scene_set import SceneSet
from ifvit.data.scene_captions import parse_caption
from ifvit.data.scenes import IMAGE_SIZE, Description
from ifvit.encoders.clip_files import load_tokenizer
from ifvit.encoders.locate import EncoderSource
from ifvit.encoders.untrained import save_image_processor, untrained_clip
from ifvit.runtime.progress import Progress

NUM_TEXT_TOKENS = 24  # the longest caption has 19
PATCH_SIZE = 8
WIDTH, HEADS, VISION_LAYERS, TEXT_LAYERS = 128, 4, 4, 2
PIXEL_MEAN, PIXEL_DEVIATION = 0.5, 0.25
BATCH_SIZE = 96  # images, each with one true and one almost true caption
LEARNING_RATE = 1.0e-3
WARMUP_STEPS = 100
ADAM_BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 1.0
LARGEST_LOGIT_SCALE = 100.0  # as CLIP's
ATTRIBUTE_WEIGHTS = {"count": 2.0, "color": 1.0, "shape": 1.0, "relation": 4.0}
TEXT_HEADS_WEIGHT, PATCH_HEADS_WEIGHT = 0.5, 2.0  # of their losses; 1 for the contrastive loss and the images' heads


def train_clip(scenes: SceneSet, num_steps: int, seed: int, folder: Path) -> None:
    """Train on `scenes` and save as transformers does: tokenizer, image processor and float16 weights."""
    save_caption_tokenizer((prompt for prompts in scenes.prompts for prompt in prompts), folder, NUM_TEXT_TOKENS)
    tokenizer = load_tokenizer(EncoderSource("SCENES", str(folder)))
    torch.manual_seed(seed)
    numpy_random, generator = np.random.default_rng(seed), random.Random(seed)
    model = new_clip(tokenizer)
    heads = AttributeHeads(WIDTH, WIDTH)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY)
    average_loss = RunningAverage(0.05)
    with Progress(num_steps, "CLIP", unit="steps") as progress:
        for step in range(num_steps):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * rate_factor(step, num_steps, WARMUP_STEPS)
            rows = np.sort(numpy_random.choice(len(scenes), BATCH_SIZE, replace=False))
            loss, contrastive = losses(model, heads, tokenizer, scenes, rows, generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
            optimizer.step()
            progress.advance(postfix_text=f"contrastive loss {average_loss.add(contrastive.item()):.3f}")
    model.half().save_pretrained(folder)
    save_image_processor(folder, IMAGE_SIZE, PIXEL_MEAN, PIXEL_DEVIATION)


def losses(
    model: Any,
    heads: AttributeHeads,
    tokenizer: Any,
    scenes: SceneSet,
    rows: NDArray[np.int64],
    generator: random.Random,
) -> tuple[Tensor, Tensor]:
    """The whole loss of a batch, and its contrastive part."""
    descriptions = [scenes.descriptions[row] for row in rows]
    almost = [changed(scene, hard_attribute(scene, generator), generator) for scene in descriptions]
    prompts = [generator.choice(scenes.prompts[row]) for row in rows]
    prompts += [any_caption(scene, generator) for scene in almost]
    shown = [scene.in_order() for scene in descriptions]
    said = [said_by(prompt) for prompt in prompts]

    vision = model.vision_model(pixel_values=clip_pixels(scenes.pixels[rows]))
    image_embeds = F.normalize(model.visual_projection(vision.pooler_output), dim=-1)
    tokens = model.vision_model.post_layernorm(vision.last_hidden_state[:, 1:])
    text = model.text_model(input_ids=padded_ids(tokenizer, prompts))
    text_embeds = F.normalize(model.text_projection(text.pooler_output), dim=-1)

    contrastive = contrastive_loss(image_embeds, text_embeds, shown, said, model.logit_scale.exp())
    covered, centre = patch_targets(descriptions, [scenes.boxes[row] for row in rows], PATCH_SIZE)
    attributes = heads.loss(image_embeds, shown) + TEXT_HEADS_WEIGHT * heads.loss(text_embeds, said)
    return contrastive + attributes + PATCH_HEADS_WEIGHT * heads.patch_loss(tokens, covered, centre), contrastive


def hard_attribute(scene: Description, generator: random.Random) -> str:
    """What to change in a caption: mostly what is hard to see."""
    attributes = changeable(scene)
    return generator.choices(attributes, [ATTRIBUTE_WEIGHTS[name] for name in attributes])[0]


def said_by(prompt: str) -> Description:
    """What one of the generator's captions says, its groups in order."""
    said = parse_caption(prompt)
    assert said is not None, prompt
    return said.in_order()


def contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    shown: Sequence[Description],
    said: Sequence[Description],
    logit_scale: Tensor,
) -> Tensor:
    """Cross-entropy, both ways, of (B, P) images against their own captions, the first B of (M, P).

    `shown` and `said` are what images and captions hold, with their groups in order.

    Captions of other images that are true of an image too are no wrong answers: they are left out.
    """
    is_also_true = torch.zeros(len(shown), len(said), dtype=torch.bool)
    columns = defaultdict(list)
    for column, caption in enumerate(said):
        columns[caption.groups].append(column)
    for row, scene in enumerate(shown):
        for column in columns[scene.groups]:
            is_also_true[row, column] = column != row and agree(scene, said[column])
    scale = logit_scale.clamp(max=LARGEST_LOGIT_SCALE)
    logits = (scale * image_embeds @ text_embeds.T).masked_fill(is_also_true, -torch.inf)
    own = torch.arange(len(shown))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, : len(shown)].T, own)) / 2


def clip_pixels(pixels: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) in 0..255 to the model's input (B, 3, H, W), as the saved image processor makes it."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - PIXEL_MEAN) / PIXEL_DEVIATION


def padded_ids(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """input_ids (B, T), T of the longest: what follows a caption's end changes nothing in a causal tower."""
    encoding = tokenizer(list(prompts), padding="longest", truncation=True, max_length=NUM_TEXT_TOKENS)
    return torch.tensor(encoding.input_ids)


def new_clip(tokenizer: Any) -> Any:
    """The untrained CLIP of this size for a tokenizer."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": HEADS,
        "projection_dim": WIDTH,
    }
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": NUM_TEXT_TOKENS,
        "num_hidden_layers": TEXT_LAYERS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    vision = {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "num_hidden_layers": VISION_LAYERS}
    return untrained_clip(tower | text, tower | vision, WIDTH)
