"""Do the shards fit the recipe? Every difference is one line that names the field."""

from collections.abc import Mapping
from typing import Any

from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.shard_set import ShardSet


def check_shards(
    recipe: Recipe,
    shard_set: ShardSet,
    autoencoder_identity: Mapping[str, Any] | None = None,
    text_encoder_identity: Mapping[str, Any] | None = None,
    *,
    split: str | None = None,
    split_field: str = "data.split",
    name: str | None = None,
) -> None:
    """Raises UserError where `shard_set` was made with other values than the recipe's.

    Encoders are compared by the digest of their weights when their identity is given (`Autoencoder.identity`,
    `TextEncoder.identity`); None leaves that comparison out. `name`: of the set in a data.mixture.
    """
    model, shapes = recipe.model, shard_set.shapes
    values: list[tuple[str, Any, Any]] = [
        (f"data.mixture.{name}.split" if name else split_field, split or recipe.data.split, shard_set.split),
        ("data.text_storage", recipe.data.text_storage, shard_set.text_storage),
        ("model.sample_size", model.sample_size, shapes.sample_size),
        ("model.in_channels", model.in_channels, shapes.latent_channels),
        ("model.num_text_tokens", model.num_text_tokens, shapes.num_text_tokens),
        ("model.text_hidden_size", model.text_hidden_size, shapes.text_hidden_size),
    ]
    # Latents are stored unscaled: several sets of other factors can be mixed.
    if name is None and recipe.encoders.scaling_factor is not None:
        values.append(("encoders.scaling_factor", recipe.encoders.scaling_factor, shard_set.scaling_factor))
    problems = [
        f"{field}: is {ours}, but the shards in {shard_set.place} were made with {theirs}; make shards for this "
        f"recipe or {f'leave out data.mixture.{name}' if name else f'set {field}={theirs}'}"
        for field, ours, theirs in values
        if ours != theirs
    ]
    ours, theirs = text_encoder_identity, shard_set.text_encoder_identity
    digests = [
        ("encoders.autoencoder", autoencoder_identity, shard_set.autoencoder_identity, "name", "sha256"),
        ("encoders.text_encoder", ours, theirs, "name", "sha256"),
        ("encoders.tokenizer", ours, theirs, "tokenizer", "tokenizer_sha256"),
    ]
    problems += [
        f"{field}: {given[name]} has other content (sha256 {given[digest][:12]}) than what made the shards in "
        f"{shard_set.place}: {stored[name]} ({stored[digest][:12]}); give that one or make shards anew"
        for field, given, stored, name, digest in digests
        if given is not None and given[digest] != stored[digest]
    ]
    if problems:
        raise UserError(*problems)
