"""Seeds derived from names and counters: nothing random depends on rank count, batch size or what ran before."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """A seed in 0..2^63-1, a function of `parts` alone: (seed, "draws", step), (seed, "initial noise", prompt)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
