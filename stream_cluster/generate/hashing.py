"""Stateless random numbers: a value for every (seed, stream, counter), without storing any.

A person's looks are computed from the person's number each time they are seen, so that a crowd of any
size costs no memory and event n does not depend on how many events came before it.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]


def mix(values: UInt64s) -> UInt64s:
    """Scramble 64-bit integers one to one: the output function of SplitMix64 (Steele et al., OOPSLA 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hashed(seed: int, stream: str, counters: npt.NDArray[np.int64]) -> UInt64s:
    """One uniform 64-bit integer for every counter. Streams of different names are independent."""
    salt = np.array([seed, zlib.crc32(stream.encode())], np.uint64)
    base = mix(mix(salt[:1]) ^ salt[1:])
    return mix(base ^ mix(counters.astype(np.uint64)))


def hashed_share(seed: int, stream: str, counters: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """One uniform number in [0, 1) for every counter."""
    high_bits = hashed(seed, stream, counters) >> np.uint64(11)
    return high_bits.astype(np.float64) * 2.0**-53


def hashed_directions(
    seed: int, stream: str, counters: npt.NDArray[np.int64], dim: int
) -> npt.NDArray[np.float32]:
    """One nearly isotropic unit vector for every counter: float32, shape (n, dim).

    A coordinate is the centred sum of four 16-bit uniform numbers (Irwin-Hall), close to a normal one.
    """
    base = hashed(seed, stream, counters)
    columns = mix(np.arange(dim, dtype=np.uint64))
    words = mix(base[:, None] ^ columns[None, :])
    parts = words.view(np.uint16).reshape(len(counters), dim, 4)
    sums = parts.sum(axis=2, dtype=np.int32) - np.int32(2 * 65_535)
    vectors = sums.astype(np.float32)
    # Four uniform numbers can sum to the centre in every coordinate of a short vector; keep it non-zero.
    vectors[~vectors.any(axis=1), 0] = 1.0
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    directions: npt.NDArray[np.float32] = vectors / lengths.astype(np.float32)
    return directions
