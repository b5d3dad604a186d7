"""Many small permutations at once: each row of a batch has its own."""

import numpy as np

from ifvit.data.order import FEISTEL_ROUNDS, Integers, Words


def permuted_rows(numbers: Integers, sizes: Integers, keys: Words) -> Integers:
    """Where the permutation of 0..sizes[k]-1 that `keys[k]` chooses sends `numbers[k]`, for every k.

    A Feistel network as in `ifvit.data.order.permuted`. Sizes are at most 2^31.
    """
    bounds = sizes.view(np.uint64)
    sides = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    if len(sides) and (sides == sides[0]).all():
        sides = sides[:1]  # which numpy divides by several times faster
    result = mixed(numbers.view(np.uint64), sides, keys)
    while len(outside := np.flatnonzero(result >= bounds)):
        result[outside] = mixed(result[outside], np.broadcast_to(sides, bounds.shape)[outside], keys[outside])
    return result.view(np.int64)


def mixed(numbers: Words, sides: Words, keys: Words) -> Words:
    """One pass of the network: a permutation of 0..sides[k]^2-1 for each row."""
    left = numbers // sides
    right = numbers - left * sides
    for number in range(FEISTEL_ROUNDS):
        word = drawn(number, right, sides, keys)
        word += left
        left, right = right, np.minimum(word, word - sides)  # modulo side: below 0 the difference wraps to a huge one
    return left * sides + right


def drawn(number: int, halves: Words, sides: Words, keys: Words) -> Words:
    """One of 0..sides[k]-1 for each row, by a hash of its key, the number of the round, and halves[k].

    The upper half of the hash is taken as a fraction of 2^32. In place, as the time is that of memory.
    """
    word = halves + np.uint64(number << 32)
    word *= np.uint64(0x9E3779B97F4A7C15)
    word += keys
    word ^= word >> np.uint64(32)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    word >>= np.uint64(32)
    word *= sides
    word >>= np.uint64(32)
    return word
