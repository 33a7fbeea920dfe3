"""The partition that a producer chooses for an account's key.

murmur2 is that of Kafka's Java client and of aiokafka (MurmurHash2 of A. Appleby, seed 0x9747b28c, sign bit
dropped); crc32 is librdkafka's `consistent`.
"""

from __future__ import annotations

import functools
import zlib
from typing import Literal

Partitioner = Literal["murmur2", "crc32"]

_MASK = 0xFFFFFFFF
_MULTIPLIER = 0x5BD1E995


@functools.lru_cache(maxsize=65_536)
def partition_for(account_id: str, partitions: int, partitioner: Partitioner) -> int:
    """The partition of an account's records, in 0..partitions-1."""
    key = account_id.encode()
    digest = zlib.crc32(key) if partitioner == "crc32" else murmur2(key) & 0x7FFFFFFF
    return digest % partitions


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2, unsigned, as org.apache.kafka.common.utils.Utils.murmur2."""
    digest = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        digest = (digest * _MULTIPLIER & _MASK) ^ word
    if whole < len(data):
        digest = (digest ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    digest = (digest ^ digest >> 13) * _MULTIPLIER & _MASK
    return digest ^ digest >> 15
