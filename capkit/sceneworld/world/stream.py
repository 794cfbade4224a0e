"""A stream of random numbers keyed by any values: splitmix64 in plain integers.

A numpy generator costs tens of microseconds to make and a scene needs few numbers. Torch is not needed here either, so
that a worker process which only generates pictures starts at once.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
_GOLDEN = 0x9E3779B97F4A7C15
MASK_64 = (1 << 64) - 1


def mix(x: int) -> int:
    """The finaliser of splitmix64: a bijection of 64-bit integers in which every input bit moves every output bit."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK_64
    return x ^ (x >> 31)


def name_id(*parts: object) -> int:
    """64 bits that stand for any values, the same in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _splitmix(state: int) -> Iterator[int]:
    """Uniform 64-bit integers without end. A generator: a call for each number would take longer than the number."""
    while True:
        state = (state + _GOLDEN) & MASK_64
        x = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK_64
        yield x ^ (x >> 31)


class Stream:
    """Random draws that depend on nothing but the values given here and the order of the calls."""

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
        """One of the values."""
        return values[(next(self._numbers) * len(values)) >> 64]

    def sample(self, values: Sequence[T], count: int) -> list[T]:
        """`count` different positions of `values`, in random order."""
        pool = list(values)
        for i in range(count):
            j = i + ((next(self._numbers) * (len(pool) - i)) >> 64)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]
