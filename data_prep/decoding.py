"""Images of a listing decoded by threads, some batches before they are needed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from data_prep.listed_sample import ListedSample
from ifvit.data.images import BadImageError, load_pixels

DECODING_THREADS = 4
BATCHES_AHEAD = 2  # that are decoded while one is encoded

Decoded = Tensor | BadImageError | None


def decoded_batches(
    samples: Sequence[ListedSample], root: Path, image_size: int, batch_size: int
) -> Iterator[tuple[Sequence[ListedSample], list[Decoded]]]:
    """Batches with the pixels (3, H, W) of each sample, what is wrong with its image, or None for a listed fault."""

    def decode(sample: ListedSample) -> Decoded:
        try:
            return None if sample.fault else load_pixels(sample.captioned_image(root), image_size)
        except BadImageError as bad:
            return bad

    ahead: list[tuple[Sequence[ListedSample], list[Future[Decoded]]]] = []
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        try:
            for start in range(0, len(samples), batch_size):
                batch = samples[start : start + batch_size]
                ahead.append((batch, [pool.submit(decode, sample) for sample in batch]))
                if len(ahead) > BATCHES_AHEAD:
                    listed, futures = ahead.pop(0)
                    yield listed, [future.result() for future in futures]
            for listed, futures in ahead:
                yield listed, [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)  # after an error nobody waits for the other images
