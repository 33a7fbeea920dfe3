"""Partitions of accounts, against the answers of Kafka's own clients."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner

from stream_cluster.messages.partitioner import murmur2, partition_for


@pytest.mark.parametrize(
    ("key", "signed"),
    [  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_answers_of_the_java_client(key, signed):
    assert murmur2(key) == signed % 2**32


@pytest.mark.parametrize("account", ["a", "ab", "abc", "acme", "lfw", "счёт", "顔-123456789", "x" * 128])
def test_murmur2_partitions_are_those_of_aiokafka(account):
    partitions = list(range(12))
    assert partition_for(account, 12, "murmur2") == DefaultPartitioner()(
        account.encode(), partitions, partitions
    )


def test_crc32_partitions_are_those_of_librdkafka():
    # 0xCBF43926 is the check value of CRC-32/ISO-HDLC for "123456789".
    assert partition_for("123456789", 1000, "crc32") == 0xCBF43926 % 1000
