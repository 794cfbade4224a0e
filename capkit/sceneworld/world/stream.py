"""A stream of random numbers seeded by arbitrary values: splitmix64 in plain integers.

Creating a numpy generator takes tens of microseconds, while a scene needs few numbers. Without torch, worker processes
that only generate pictures start quickly.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
_GOLDEN = 0x9E3779B97F4A7C15
MASK_64 = (1 << 64) - 1


def mix(x: int) -> int:
    """The finaliser of splitmix64: a bijection of 64-bit integers in which every input bit affects every output bit."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK_64
    return x ^ (x >> 31)


def name_id(*parts: object) -> int:
    """64-bit hash of arbitrary values, equal in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _splitmix(state: int) -> Iterator[int]:
    """Endless uniform 64-bit integers. A generator, since a function call would take longer than the arithmetic."""
    while True:
        state = (state + _GOLDEN) & MASK_64
        x = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK_64
        yield x ^ (x >> 31)


class Stream:
    """Random draws that depend only on the given values and the order of calls."""

    def __init__(self, *parts: object) -> None:
        self._numbers = _splitmix(name_id(*parts))

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound)."""
        return (next(self._numbers) * bound) >> 64

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return next(self._numbers) < probability * 2.0**64

    def uniform(self, low: float, high: float) -> float:
        """A uniform float in [low, high)."""
        return low + (high - low) * (next(self._numbers) >> 11) * 2.0**-53

    def choice(self, values: Sequence[T]) -> T:
        """A uniformly chosen value."""
        return values[(next(self._numbers) * len(values)) >> 64]

    def sample(self, values: Sequence[T], count: int) -> list[T]:
        """The values at `count` distinct positions, in random order."""
        pool = list(values)
        for i in range(count):
            j = i + ((next(self._numbers) * (len(pool) - i)) >> 64)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]
