"""Where a partition's state goes on reading, and whether the log is the one that it was built from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import TopicPartition

from stream_cluster.config.settings import KafkaSettings
from stream_cluster.errors import LogGap
from stream_cluster.service.kafka import make_consumer, start_client
from stream_cluster.service.logs import get_logger
from stream_cluster.service.statuses import now_text
from stream_cluster.state.gaps import digest_of
from stream_cluster.state.partition import Partition

_log = get_logger(__name__)
_POLL_MS = 200
_LOOK_S = 30.0


async def first_offset(
    settings: KafkaSettings,
    state: Partition,
    log_range: tuple[int, int],
    in_engine: Callable[..., Awaitable[Any]],
    *,
    is_first: Callable[[], Awaitable[bool]],
    accept_gap: bool,
) -> int:
    """The offset to read from: the state's next_offset, which the log must still have.

    A state that has applied nothing needs the log from its begin. That is wherever the log begins when the
    group `is_first` to read it, else offset 0: a former state of the group may have had what is gone.
    `log_range` is the first offset of the log, and the one after its last. With `accept_gap` a gap is noted
    in the state, which goes on at the first offset that there is.

    Raises:
        LogGap: records that the state needs are gone, or the topic is a new one.
    """
    begin, end = log_range
    topic, number = state.identity.topic, state.identity.partition
    stored = state.stored_offset(topic, number)
    is_new = stored is None
    if stored is None:
        noted = await in_engine(state.offsets.log_begin)
        if noted is None:
            noted = begin if await is_first() else 0
        stored = min(noted, begin)
        problem = _missing(stored, begin) if stored < begin else None
    else:
        problem = await _problem(settings, state, (begin, end), in_engine)
    if problem is not None and not accept_gap:
        raise LogGap(f"topic {topic} partition {number}: {problem}")
    if is_new:
        await in_engine(state.begin_at, begin)
    if problem is not None:
        await in_engine(state.accept_gap, stored, begin, now_text())
        _log.warning("gap_accepted", partition=number, from_offset=stored, to_offset=begin, problem=problem)
        return begin
    if is_new and begin:
        _log.warning("log_begins_late", partition=number, log_begins_at=begin)
    return stored


async def _problem(
    settings: KafkaSettings,
    state: Partition,
    log_range: tuple[int, int],
    in_engine: Callable[..., Awaitable[Any]],
) -> str | None:
    begin, end = log_range
    stored = state.next_offset
    if stored < begin:
        return _missing(stored, begin)
    if stored > end:
        return (
            f"the state has applied offsets below {stored}, but the log ends at {end}; "
            "the topic was recreated or truncated"
        )
    last = await in_engine(state.offsets.last_record)
    if last is None or not begin <= last.offset < end:
        return None  # nothing to compare: it has left the log
    found = await _digest_at(settings, state.identity.topic, state.identity.partition, last.offset)
    if found is None or found == last.digest:
        return None
    return f"the log has another record at offset {last.offset} than the state has applied; it was recreated"


def _missing(needed: int, begin: int) -> str:
    gone = begin - needed
    return f"the state needs offset {needed} next, but the log begins at {begin}; {gone} records are gone"


async def _digest_at(settings: KafkaSettings, topic: str, number: int, offset: int) -> str | None:
    """The digest of the record at an offset; None when there is none, as after compaction, or no answer."""
    partition = TopicPartition(topic, number)
    consumer = make_consumer(settings, group=False)
    try:
        await start_client(consumer, settings)
        consumer.assign([partition])
        consumer.seek(partition, offset)
        async with asyncio.timeout(_LOOK_S):
            while await consumer.position(partition) <= offset:
                fetched = await consumer.getmany(partition, timeout_ms=_POLL_MS, max_records=1)
                for record in fetched.get(partition, ()):
                    is_it = record.offset == offset
                    return digest_of(record.key, record.value, record.timestamp) if is_it else None
    except TimeoutError:
        _log.warning("not_answered", error=f"no record at offset {offset} of {topic}", retrying=False)
    finally:
        await consumer.stop()
    return None
