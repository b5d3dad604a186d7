"""Bytes of each way to store a listing's samples, known before anything is encoded."""

from data_prep.listing import Listing
from ifvit.config.schema import Recipe
from ifvit.data.shard_format import FLOAT, IDS, SampleShapes, member_span, npy_size


def storage_sizes(listing: Listing, recipe: Recipe) -> dict[str, int]:
    """Bytes of moments, prompts, input_ids and prompt_embeds in the tars, but for the few KB that end each tar."""
    model = recipe.model
    shapes = SampleShapes(model.in_channels, model.sample_size, model.num_text_tokens, model.text_hidden_size)
    samples_with = {int(count): samples for count, samples in listing.content["prompt_counts"].items()}
    return {
        "moments": sum(samples_with.values()) * member_span(npy_size(FLOAT, shapes.moments)),
        "prompts": listing.content["prompts_span"],
        "input_ids": sum(
            samples * member_span(npy_size(IDS, shapes.input_ids(count))) for count, samples in samples_with.items()
        ),
        "prompt_embeds": listing.content["prompts"] * member_span(npy_size(FLOAT, shapes.prompt_embeds)),
    }


def describe_storage(listing: Listing, recipe: Recipe) -> list[str]:
    """A line for what is stored, then one for each value of data.text_storage."""
    sizes = storage_sizes(listing, recipe)
    without_embeds = sum(sizes.values()) - sizes["prompt_embeds"]
    totals = {"token_ids": without_embeds, "embeddings": without_embeds + sizes["prompt_embeds"]}
    return [
        f"{listing.num_samples:,} samples with {listing.content['prompts']:,} captions in {listing.num_shards:,} "
        f"shards: float16 moments {readable(sizes['moments'])}, token ids {readable(sizes['input_ids'])}, "
        f"float16 embeddings of all captions {readable(sizes['prompt_embeds'])}, text {readable(sizes['prompts'])}",
        *(
            f"  data.text_storage={name}: {total:,} bytes, up to 10 KB more for each tar"
            f"{' (the recipe has this)' if name == recipe.data.text_storage else ''}"
            for name, total in totals.items()
        ),
    ]


def readable(size: int) -> str:
    """1234567 as 1.23 MB."""
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
