"""Text embeddings made during training, for shards that store token ids only."""

from ifvit.data.batch import Batch
from ifvit.encoders.text_encoder import TextEncoder


def with_prompt_embeds(batch: Batch, text_encoder: TextEncoder) -> Batch:
    """`batch` with prompt_embeds (R, T, X) of its input_ids, on the text encoder's device; unchanged if it has them."""
    if batch.prompt_embeds is not None:
        return batch
    assert batch.input_ids is not None, "a batch has prompt_embeds or input_ids"
    return batch.with_prompt_embeds(text_encoder.encode(batch.input_ids))
