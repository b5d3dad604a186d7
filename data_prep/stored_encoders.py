"""The encoders that made a set of shards, found again by their names and known by their digests."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from data_prep.set_description import SetIndex
from ifvit.config.errors import UserError
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.clip_files import TOKENIZER_FIELD, load_tokenizer, tokenizer_digest
from ifvit.encoders.locate import EncoderSource, locate
from ifvit.encoders.random_weights import RANDOM_TEXT_ENCODER, byte_tokenizer_folder

Found = TypeVar("Found")


def stored_autoencoder(index: SetIndex, chosen: str | None, device: torch.device) -> Autoencoder:
    """The autoencoder called `chosen`, or as when the shards were made. Raises UserError where neither made them."""
    names = [chosen, index.autoencoder.name]
    return matching(
        names,
        index.autoencoder.sha256,
        lambda name: Autoencoder.load(name, device),
        lambda autoencoder: str(autoencoder.identity["sha256"]),
    )


def stored_tokenizer(index: SetIndex, chosen: str | None) -> Any:
    """The tokenizer, as `stored_autoencoder` finds the autoencoder."""

    def load(name: str) -> Any:
        if name == RANDOM_TEXT_ENCODER:
            return load_tokenizer(EncoderSource(TOKENIZER_FIELD, str(byte_tokenizer_folder())))
        return load_tokenizer(locate(TOKENIZER_FIELD, name))

    names = [chosen, index.text_encoder.tokenizer]
    return matching(names, index.text_encoder.tokenizer_sha256, load, tokenizer_digest)


def matching(
    names: list[str | None], sha256: str, load: Callable[[str], Found], digest: Callable[[Found], str]
) -> Found:
    """The first of `names` that has this digest. Raises UserError saying what is wrong with each."""
    reasons = []
    for name in dict.fromkeys(filter(None, names)):
        try:
            found = load(name)
        except UserError as error:
            reasons.append(str(error))
            continue
        if (other := digest(found)) == sha256:
            return found
        reasons.append(f"{name} has other content (sha256 {other[:12]}) than what made the shards ({sha256[:12]})")
    raise UserError("; ".join(reasons))
