"""What the token ids of a caption begin with, end with and are filled up with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenFrame:
    """The special ids of a tokenizer and the number of all its ids. Rows are start, text, end, padding."""

    vocabulary: int
    start: int
    end: int
    padding: int

    @classmethod
    def of(cls, tokenizer: Any) -> "TokenFrame":
        return cls(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)

    def lengths(self, input_ids: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Tokens of each row (R, T) up to its end, that included; T where there is no end."""
        is_end = input_ids == self.end
        return np.where(is_end.any(axis=1), is_end.argmax(axis=1) + 1, input_ids.shape[1])

    def fault(self, input_ids: NDArray[np.uint16]) -> str | None:
        """What is wrong with the rows (R, T) of one sample; None where nothing is."""
        if input_ids.max() >= self.vocabulary:
            return f"has token id {input_ids.max()}, but the tokenizer has {self.vocabulary} tokens"
        is_behind = np.arange(input_ids.shape[1]) >= self.lengths(input_ids)[:, None]
        for what, is_wrong in (
            ("does not begin with the start token", input_ids[:, 0] != self.start),
            ("has no end token", ~(input_ids == self.end).any(axis=1)),
            ("has text behind its end", ((input_ids != self.padding) & is_behind).any(axis=1)),
        ):
            if is_wrong.any():
                return f"caption {int(is_wrong.argmax())} {what}"
        return None
