"""The frozen text encoder and its tokenizer: prompts to input_ids to prompt_embeds.

Shape letters: B prompts, T text tokens (padded and truncated), X text width.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.encoders.clip_files import TOKENIZER_FIELD, load_clip, load_tokenizer, num_longer, tokenize, tokenizer_digest
from ifvit.encoders.identity import state_digest
from ifvit.encoders.locate import BUNDLED, EncoderSource, locate
from ifvit.encoders.random_weights import RANDOM_TEXT_ENCODER, byte_tokenizer_folder, random_text_encoder_folder

FIELD = "encoders.text_encoder"


class TextEncoder:
    """A CLIPTextModel's `last_hidden_state` in float32, without gradients and, as in CLIP, without a padding mask."""

    def __init__(self, model: Any, tokenizer: Any, num_text_tokens: int, identity: dict[str, Any]) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.num_text_tokens = num_text_tokens
        self.hidden_size: int = model.config.hidden_size
        self.identity = identity

    @classmethod
    def load(
        cls, name: str, tokenizer_name: str | None, num_text_tokens: int, device: torch.device | str = "cpu"
    ) -> "TextEncoder":
        """From a local folder, a hub name, `scenes-clip` or `random-clip-small`.

        `tokenizer_name` None means the encoder's own.

        Raises UserError naming the recipe's field when files are absent or encoder, tokenizer and length do not fit.
        """
        if name == RANDOM_TEXT_ENCODER:
            # Its vocabulary is the tokenizer's, so the tokenizer comes first.
            if tokenizer_name is None:
                tokenizer = load_tokenizer(EncoderSource(FIELD, str(byte_tokenizer_folder())))
            else:
                tokenizer = load_tokenizer(locate(TOKENIZER_FIELD, tokenizer_name))
            folder = random_text_encoder_folder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
            source = EncoderSource(FIELD, str(folder))
            model = load_clip(source, "CLIPTextModel")
        else:
            source = locate(FIELD, name)
            model = load_clip(source, "CLIPTextModel")
            tokenizer = load_tokenizer(locate(TOKENIZER_FIELD, tokenizer_name or name))
        # Before the first padded call, which would leave its padding and truncation in the serialised state.
        tokenizer_sha256 = tokenizer_digest(tokenizer)
        check_fit(model, tokenizer, num_text_tokens)
        identity = {
            "name": name,
            "sha256": state_digest(model.state_dict(), ignored_prefix="text_model."),  # as older transformers have it
            "random": source.is_random,
            "tokenizer": tokenizer_name or name,
            "tokenizer_sha256": tokenizer_sha256,
        }
        return cls(model.to(device), tokenizer, num_text_tokens, identity)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """input_ids (B, T) int64 on the CPU: start, text, end, padding; B >= 1. "<|endoftext|>" in a prompt is text."""
        return tokenize(self.tokenizer, prompts, self.num_text_tokens)

    def unread(self, prompts: Sequence[str]) -> list[str]:
        """Sentences on what of `prompts` it does not read: the end of long ones, words no scene's caption has."""
        name = self.identity["name"]
        sentences = []
        if cut := num_longer(self.tokenizer, prompts, self.num_text_tokens):
            sentences.append(f"{cut} of {len(prompts)} prompts are cut: the model reads {self.num_text_tokens} tokens")
        if name in BUNDLED:
            # Its vocabulary has each word it was trained on as one token.
            words = dict.fromkeys(word for prompt in prompts for word in re.findall(r"[^\W\d_]+", prompt.lower()))
            unknown = [word for word in words if len(self.tokenizer(word, add_special_tokens=False).input_ids) > 1]
            if unknown:
                sentences.append(f"{name} has read captions of scenes only and does not know: {', '.join(unknown)}")
        return sentences

    @torch.no_grad()
    def encode(self, input_ids: Tensor) -> Tensor:
        """input_ids (B, T) to prompt_embeds (B, T, X) float32 on the encoder's device."""
        return self.model(input_ids.to(self.device, torch.int64)).last_hidden_state

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """prompt_embeds (B, T, X) float32 of the prompts; "" gives the null condition."""
        return self.encode(self.tokenize(prompts))


def check_fit(model: Any, tokenizer: Any, num_text_tokens: int) -> None:
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"{TOKENIZER_FIELD}: has {len(tokenizer)} tokens, the text encoder knows {model.config.vocab_size}; "
            "give the text encoder's own tokenizer"
        )
    if num_text_tokens > model.config.max_position_embeddings:
        raise UserError(
            f"model.num_text_tokens: is {num_text_tokens}, the text encoder has "
            f"{model.config.max_position_embeddings} positions"
        )
