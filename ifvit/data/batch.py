"""What the loader hands to training: this rank's rows of one global batch."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """R rows. As read, moments and prompt_embeds are float16 as stored; `to` widens them to float32 on the device.

    Exactly one of prompt_embeds and input_ids is there, by the shards' `text_storage`, until
    `ifvit.data.online_text.with_prompt_embeds` adds the former. Rows with `is_dropped` keep their own caption here: the
    objective puts the null condition in its place.
    """

    moments: Tensor  # (R, 2C, H, W): latent_mean, then latent_logvar; unscaled
    prompt_embeds: Tensor | None  # (R, T, X)
    input_ids: Tensor | None  # (R, T) int64
    is_dropped: Tensor  # (R,) bool
    sample_ids: Tensor  # (R,) int64: COCO image ids
    global_rows: Tensor  # (R,) int64: which rows of the global batch these are

    def __len__(self) -> int:
        return len(self.sample_ids)

    def rows(self, start: int, stop: int) -> "Batch":
        """The rows start..stop-1, as views."""
        return Batch(
            moments=self.moments[start:stop],
            prompt_embeds=None if self.prompt_embeds is None else self.prompt_embeds[start:stop],
            input_ids=None if self.input_ids is None else self.input_ids[start:stop],
            is_dropped=self.is_dropped[start:stop],
            sample_ids=self.sample_ids[start:stop],
            global_rows=self.global_rows[start:stop],
        )

    def to(self, device: torch.device | str) -> "Batch":
        """On `device`, moments and prompt_embeds in float32. The transfer is in float16: half the bytes.

        From pinned memory the transfer is only started.
        """

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=tensor.is_pinned())

        return Batch(
            moments=moved(self.moments).float(),
            prompt_embeds=None if self.prompt_embeds is None else moved(self.prompt_embeds).float(),
            input_ids=None if self.input_ids is None else moved(self.input_ids),
            is_dropped=moved(self.is_dropped),
            sample_ids=moved(self.sample_ids),
            global_rows=moved(self.global_rows),
        )

    def with_prompt_embeds(self, prompt_embeds: Tensor) -> "Batch":
        return replace(self, prompt_embeds=prompt_embeds)
