"""A whole CLIP: images and prompts as directions in one space, to measure how well they fit. For evaluation only.

Shape letters: N images or prompts, P width of the common space.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ifvit.config.errors import UserError
from ifvit.encoders.clip_files import (
    has_image_half,
    load_clip,
    load_image_processor,
    load_tokenizer,
    num_longer,
    tokenize,
    tokenizer_digest,
)
from ifvit.encoders.identity import state_digest
from ifvit.encoders.locate import locate
from ifvit.encoders.random_weights import RANDOM_TEXT_ENCODER

OPTION = "--clip"
BATCH_SIZE = 64  # images or prompts per call of the model


class Clip:
    """A CLIPModel in float32, without gradients, with its own tokenizer and image processor."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, identity: dict[str, Any]) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.identity = identity

    @classmethod
    def load(
        cls, name: str, device: torch.device | str = "cpu", field: str = OPTION, tokenizer_name: str | None = None
    ) -> "Clip":
        """From a local folder, a hub name or `scenes-clip`; `tokenizer_name` None means the model's own.

        Raises UserError naming `field`, the option or the recipe's field that `name` is the value of.
        """
        if name == RANDOM_TEXT_ENCODER or not has_image_half(source := locate(field, name)):
            raise UserError(
                f"{field}: '{name}' is a text encoder alone, images cannot be measured with it; "
                f"give a folder with a whole CLIP: {OPTION} DIR"
            )
        model = load_clip(source, "CLIPModel")
        tokenizer = load_tokenizer(locate(field, tokenizer_name or name))
        image_processor = load_image_processor(source)
        identity = {
            "name": name,
            "sha256": state_digest(model.state_dict()),
            "random": source.is_random,
            "tokenizer_sha256": tokenizer_digest(tokenizer),
            "image_processor_sha256": hashlib.sha256(image_processor.to_json_string().encode()).hexdigest(),
        }
        return cls(model.to(device), tokenizer, image_processor, identity)

    @property
    def notice(self) -> str:
        """What a number measured with it must say; empty for a trained CLIP."""
        return "Random weights in the CLIP: a check of the machinery." if self.identity["random"] else ""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def num_text_tokens(self) -> int:
        """What it reads of a prompt, start and end included; the rest is cut off."""
        return int(self.model.config.text_config.max_position_embeddings)

    def num_truncated(self, prompts: Sequence[str]) -> int:
        """How many of `prompts` are longer than it reads."""
        return num_longer(self.tokenizer, prompts, self.num_text_tokens)

    def knows_words(self, text: str) -> bool:
        """Whether its tokenizer has each word of `text` as one token, and not only in pieces or letters."""
        return len(self.tokenizer(text, add_special_tokens=False).input_ids) == len(text.split())

    @torch.no_grad()
    def image_embeds(self, images: np.ndarray) -> Tensor:
        """`images` (N, height, width, 3) uint8 in the common space, of any length: (N, P) float32 on the CPU."""
        embeds = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = list(np.asarray(images[start : start + BATCH_SIZE]))
            inputs = self.image_processor(batch, return_tensors="pt", input_data_format="channels_last")
            pooled = self.model.vision_model(inputs.pixel_values.to(self.device)).pooler_output
            embeds.append(self.model.visual_projection(pooled).cpu())
        return torch.cat(embeds)

    def image_features(self, images: np.ndarray) -> Tensor:
        """`image_embeds` of length 1: (N, P) float32 on the CPU."""
        return F.normalize(self.image_embeds(images))

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """`prompts`, padded and truncated, in the common space, of length 1: (N, P) float32 on the CPU."""
        features = []
        for start in range(0, len(prompts), BATCH_SIZE):
            input_ids = tokenize(self.tokenizer, prompts[start : start + BATCH_SIZE], self.num_text_tokens)
            pooled = self.model.text_model(input_ids.to(self.device)).pooler_output
            features.append(F.normalize(self.model.text_projection(pooled)).cpu())
        return torch.cat(features)
