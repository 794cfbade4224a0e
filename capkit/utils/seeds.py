"""Seeds from any values, and numpy generators from them. Free of torch."""

import hashlib

import numpy as np


def stable_hash(*parts: object) -> int:
    """A 63-bit hash of any values (text, ints), equal in every process and Python version."""
    # surrogatepass: file names may contain bytes that are not UTF-8, represented as lone surrogates
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: object) -> np.random.Generator:
    """A numpy generator (Philox) seeded by any values, for augmenting an example or shuffling an epoch."""
    return np.random.Generator(np.random.Philox(stable_hash(*parts)))
