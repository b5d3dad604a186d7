"""The frozen text encoder and its tokenizer: prompts to input_ids to prompt_embeds. The only wrapper of transformers.

Shape letters: B prompts, T text tokens (padded and truncated), X text width.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.encoders.identity import state_digest
from ifvit.encoders.locate import EncoderSource, locate
from ifvit.encoders.quiet import quiet_transformers
from ifvit.encoders.random_weights import RANDOM_TEXT_ENCODER, byte_tokenizer_folder, random_text_encoder_folder

FIELD = "encoders.text_encoder"
TOKENIZER_FIELD = "encoders.tokenizer"
SMALLEST_VOCABULARY = 258  # 256 bytes, start and end; CLIP's has 49,408 entries


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
        """From a local folder, a hub name or `random-clip-small`; `tokenizer_name` None means the encoder's own.

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
            model = load_model(source)
        else:
            source = locate(FIELD, name)
            model = load_model(source)
            tokenizer = load_tokenizer(locate(TOKENIZER_FIELD, tokenizer_name or name))
        # Before the first padded call, which would leave its padding and truncation in the serialised state.
        tokenizer_sha256 = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
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
        encoding = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.num_text_tokens,
            split_special_tokens=True,
        )
        return torch.tensor(encoding.input_ids, dtype=torch.int64)

    @torch.no_grad()
    def encode(self, input_ids: Tensor) -> Tensor:
        """input_ids (B, T) to prompt_embeds (B, T, X) float32 on the encoder's device."""
        return self.model(input_ids.to(self.device, torch.int64)).last_hidden_state

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """prompt_embeds (B, T, X) float32 of the prompts; "" gives the null condition."""
        return self.encode(self.tokenize(prompts))


def load_tokenizer(source: EncoderSource) -> Any:
    from transformers import CLIPTokenizer

    tokenizer = source.load(
        "a CLIPTokenizer", lambda: CLIPTokenizer.from_pretrained(source.location, subfolder=source.subfolder)
    )
    # Where the files are absent, transformers 5 gives a tokenizer with an empty vocabulary instead of an error.
    if len(tokenizer) < SMALLEST_VOCABULARY:
        raise UserError(
            f"{source.field}: '{source.location}' has no CLIP tokenizer (a vocabulary of {len(tokenizer)}); "
            f"give a local folder with vocab.json and merges.txt, or tokenizer.json: --set {TOKENIZER_FIELD}=DIR"
        )
    ids = tokenizer("a cat").input_ids
    if ids[0] != tokenizer.bos_token_id or ids[-1] != tokenizer.eos_token_id or tokenizer.unk_token_id in ids[1:-1]:
        raise UserError(f"{source.field}: '{source.location}' has no CLIP tokenizer: it encodes 'a cat' as {ids}")
    return tokenizer


def load_model(source: EncoderSource) -> Any:
    from transformers import CLIPTextModel

    with quiet_transformers():
        model, report = source.load(
            "a CLIPTextModel",
            lambda: CLIPTextModel.from_pretrained(
                source.location,
                subfolder=source.subfolder,
                dtype=torch.float32,
                use_safetensors=True,  # never unpickle
                output_loading_info=True,
            ),
        )
    # Weights that are absent would be random, without an error. Unexpected ones are a full CLIPModel's image half.
    if wrong := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise UserError(
            f"{source.field}: the weights in {source.location} are no CLIPTextModel's: "
            f"{len(wrong)} tensors are missing or of another shape, such as {wrong[0]}"
        )
    return model.eval().requires_grad_(False)


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
