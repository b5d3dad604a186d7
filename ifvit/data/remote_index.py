"""The index.json of a remote shard folder: nothing in it is trusted before it is looked at."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.data.remote_folder import RemoteFolder
from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_format import FORMAT_VERSION, INDEX_FILE, ShardFiles, index_size

SHA256 = re.compile("[0-9a-f]{64}")


def parsed_index(content: bytes, remote: RemoteFolder) -> dict[str, Any]:
    """What an index.json says. Raises UserError where it is damaged, or names a file that is no shard's."""
    place = remote.name(INDEX_FILE)
    try:
        index = unsealed(content)
        version, shards = index["format_version"], index["shards"]
        if version != FORMAT_VERSION:
            raise UserError(f"{place}: has shard format {version}, this program reads {FORMAT_VERSION}; make it anew")
        wrong = first_wrong(shards)
        if index["text_storage"] not in ("embeddings", "token_ids"):
            raise ValueError("text_storage")
        if not SHA256.fullmatch(index["null_prompt_embeds_sha256"]):
            raise ValueError("null_prompt_embeds_sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{place}: is damaged or of another version ({type(error).__name__}); upload it again"
        ) from error
    if wrong is not None:
        raise wrong_entry(remote, wrong)
    return index


def set_bytes(index: Mapping[str, Any]) -> int:
    """Of all tars and of samples.index."""
    has_embeddings = index["text_storage"] == "embeddings"
    shards = index["shards"]
    return sum(each["size"] + index_size(each["samples"], each["prompts"], has_embeddings) for each in shards)


def wrong_entry(remote: RemoteFolder, shard: int) -> UserError:
    return UserError(
        f"{remote.name(INDEX_FILE)}: the entry of shard {shard} is not one that data_prep writes; upload it again"
    )


def first_wrong(shards: Sequence[Mapping[str, Any]]) -> int | None:
    """The number of the first entry that is not as it must be."""
    for number, shard in enumerate(shards):
        counts = [shard[name] for name in ("samples", "prompts", "size")]
        if (
            shard["tar"] != ShardFiles(Path(), number).tar.name
            or any(type(count) is not int or count < 0 for count in counts)
            or not all(SHA256.fullmatch(shard[name]) for name in ("sha256", "index_sha256"))
        ):
            return number
    return None
