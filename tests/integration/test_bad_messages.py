"""Bad records go to the dead-letter topic as they came, good ones go in, and every total reconciles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka.structs import ConsumerRecord, RecordMetadata

from stream_cluster.generate import FAULTS, GeneratedRecord, GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from stream_cluster.state.database import database_path
from stream_cluster.state.view import PartitionView
from tests.support import kafka
from tests.support.archives import expected_clusters, sightings
from tests.support.client import client_of, clustering
from tests.support.service import Topics, make_topics, parse_metrics, running_service

ACCOUNTS = ("acme", "globex", "initech")
LIMIT_BYTES = 40_000


def _headers(record: ConsumerRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


def _check_dead_letters(
    records: Sequence[GeneratedRecord],
    placed: Sequence[RecordMetadata],
    letters: Sequence[ConsumerRecord],
    topics: Topics,
) -> None:
    """Every bad record is there once, byte for byte, with its reason and where it came from."""
    expected = {
        (where.partition, where.offset): record
        for record, where in zip(records, placed, strict=True)
        if record.expected_reason is not None
    }
    found = {}
    for letter in letters:
        headers = _headers(letter)
        assert headers["source-topic"] == topics.events
        place = int(headers["source-partition"]), int(headers["source-offset"])
        assert place not in found, "a dead letter came twice"
        found[place] = letter, headers
    assert found.keys() == expected.keys()
    for place, (letter, headers) in found.items():
        record = expected[place]
        assert (letter.key, letter.value) == (record.key, record.value)
        assert headers["reason"] == record.expected_reason, headers
        assert headers["detail"]
        assert headers["content-type"] == record.content_type


@pytest.mark.parametrize(
    ("message_format", "encoding"), [("json", "float32"), ("msgpack", "int8")], ids=["json", "msgpack"]
)
async def test_one_bad_record_in_ten_of_every_kind(
    broker: Broker, tmp_path: Path, message_format: str, encoding: str
) -> None:
    options = GenerateOptions(
        events=3000,
        people=300,
        accounts=ACCOUNTS,
        dim=64,
        encoding=encoding,
        format=message_format,
        bad_share=0.1,
        too_large_bytes=LIMIT_BYTES + 1,
    )
    records = list(generate_events(options))
    reasons = Counter(record.expected_reason for record in records if record.expected_reason)
    assert reasons.keys() == set(FAULTS)
    good = [record for record in records if record.expected_reason is None]
    topics = await make_topics(broker, f"bad-messages-{message_format}", 3)
    async with (
        client_of(broker, topics) as client,
        running_service(
            broker, topics, tmp_path, kafka__max_message_bytes=LIMIT_BYTES, ingest__batch_max_records=256
        ) as worker,
    ):
        placed = await client.produce(records)
        await worker.applied(len(records))
        letters = await kafka.read_topic(broker.bootstrap_servers, topics.dead_letters)
        _check_dead_letters(records, placed, letters, topics)

        await client.submit(*(clustering("all", account, threshold=0.55) for account in ACCOUNTS))
        archives = {account: await client.archive("all", account) for account in ACCOUNTS}
        for account, archive in archives.items():
            assert archive.members == expected_clusters(sightings(records, account), 0.55)

        metrics = parse_metrics((await worker.get("/metrics"))[1])

        def value(name: str, **labels: str) -> float:
            return metrics[f"stream_cluster_{name}", frozenset(labels.items())]

        assert value("records_total", result="accepted") == len(good)
        assert value("records_total", result="duplicate") == 0
        assert value("records_total", result="rejected") == len(letters) == sum(reasons.values())
        assert value("dead_letters_total") == len(letters)
        assert {reason: value("rejections_total", reason=reason) for reason in reasons} == reasons

    stored: Counter[tuple[str, str]] = Counter()
    by_account: Counter[str] = Counter()
    for partition in range(topics.partitions):
        with PartitionView(database_path(tmp_path / "state", partition)) as view:
            counters = view.counters()
            stored.update(counters)
            assert sum(counters.values()) == view.next_offset()
            for account in ACCOUNTS:
                counts = view.counters(account)
                by_account[account] += sum(n for (result, _), n in counts.items() if result == "rejected")
    assert stored.pop(("accepted", "")) == len(good)
    assert {reason: count for (_, reason), count in stored.items()} == reasons
    for account, archive in archives.items():
        counts = archive.manifest["counts"]
        own = [record for record in good if record.account_id == account]
        assert counts["objects_received"] == counts["objects"] == len(own)
        # Rejected records of an account in its own partition; those in a wrong one are not this state's.
        assert 0 < counts["records_rejected"] <= by_account[account]


async def test_a_record_without_a_value_is_a_dead_letter_and_one_without_a_key_is_not(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "no-value")
    first, second = generate_events(GenerateOptions(events=2, dim=16))
    # The account decides which partition is right, not the key: this topic has only the right one.
    sent = [(b"demo", None, []), (None, first.value, []), (b"other", second.value, [])]
    async with running_service(broker, topics, tmp_path) as worker:
        await kafka.produce(broker.bootstrap_servers, topics.events, sent)
        await worker.applied(len(sent))
        (letter,) = await kafka.read_topic(broker.bootstrap_servers, topics.dead_letters)
        assert worker.records() == {"accepted": 2, "duplicate": 0, "rejected": 1}
    assert (letter.key, letter.value) == (b"demo", None)
    headers = _headers(letter)
    assert (headers["reason"], headers["source-offset"]) == ("undecodable", "0")
