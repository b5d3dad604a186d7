"""A CLIP's files, whole or its text half, as transformers' objects: refused where anything would be invented."""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.encoders.locate import EncoderSource
from ifvit.encoders.quiet import quiet_transformers

TOKENIZER_FIELD = "encoders.tokenizer"
SMALLEST_VOCABULARY = 258  # 256 bytes, start and end; CLIP's has 49,408 entries


def load_clip(source: EncoderSource, kind: Literal["CLIPTextModel", "CLIPModel"]) -> Any:
    """The model in `source` as transformers' class `kind`: float32, on the CPU, without gradients."""
    import transformers

    with quiet_transformers():
        model, report = source.load(
            f"a {kind}",
            lambda: getattr(transformers, kind).from_pretrained(
                source.location,
                subfolder=source.subfolder,
                dtype=torch.float32,
                use_safetensors=True,  # never unpickle
                output_loading_info=True,
            ),
        )
    # Weights that are absent would be random, without an error. Unexpected ones are a full model's image half.
    if wrong := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise UserError(
            f"{source.field}: the weights in {source.location} are no {kind}'s: "
            f"{len(wrong)} tensors are missing or of another shape, such as {wrong[0]}"
        )
    return model.eval().requires_grad_(False)


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


def tokenize(tokenizer: Any, prompts: Sequence[str], num_text_tokens: int) -> Tensor:
    """input_ids (B, T) int64 on the CPU: start, text, end, padding; B >= 1. "<|endoftext|>" in a prompt is text."""
    encoding = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=num_text_tokens, split_special_tokens=True
    )
    return torch.tensor(encoding.input_ids, dtype=torch.int64)


def num_longer(tokenizer: Any, prompts: Sequence[str], num_text_tokens: int) -> int:
    """How many of `prompts` have more tokens than that, start and end included."""
    encoded = tokenizer(list(prompts), split_special_tokens=True, verbose=False).input_ids
    return sum(len(input_ids) > num_text_tokens for input_ids in encoded)


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 of all that decides what a tokenizer does. To be taken before its first padded call, which changes it."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def load_image_processor(source: EncoderSource) -> Any:
    """What turns images into a CLIPModel's input, as the model's preprocessor_config.json says; through PIL."""
    from transformers import CLIPImageProcessorPil

    return source.load(
        "a CLIP image processor",
        lambda: CLIPImageProcessorPil.from_pretrained(source.location, subfolder=source.subfolder),
    )


def has_image_half(source: EncoderSource) -> bool:
    """Whether the model in `source` is a whole CLIP: its configuration speaks of images."""
    from transformers import CLIPConfig

    values, _ = source.load(
        "a CLIP's config.json", lambda: CLIPConfig.get_config_dict(source.location, subfolder=source.subfolder)
    )
    return "vision_config" in values
