"""The batches of a run, from any number of the endless stream on."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

from ifvit.data.batch import Batch
from ifvit.data.loader import BatchLoader


class Batches(Protocol):
    """This rank's rows of each global batch, in order, on the training device. Without end."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def go_on_at(self, number: int) -> None:
        """The next batch is that with this number."""


class BatchStream:
    """Iterates over the prepared batches number `first`, `first + 1`, ..., until told to go on elsewhere.

    Args:
        open_loader: gives a loader whose first batch has the given number. Collective where the shards are fetched.
        prepare: puts a batch on the training device, with prompt_embeds.
    """

    def __init__(
        self, open_loader: Callable[[int], BatchLoader], prepare: Callable[[Batch], Batch], first: int
    ) -> None:
        self.open_loader = open_loader
        self.prepare = prepare
        self.loader = open_loader(first)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.prepare(next(self.loader))

    def go_on_at(self, number: int) -> None:
        """The next batch is that with this number."""
        self.loader.close()
        self.loader = self.open_loader(number)

    def __enter__(self) -> "BatchStream":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loader.close()
