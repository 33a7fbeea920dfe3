"""What must hold for any input: values, never exceptions; and what is accepted can be told on and stored."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np

from stream_cluster.messages import (
    JSON,
    MSGPACK,
    AnyTask,
    BadTask,
    DecodeRules,
    Filters,
    ObjectMessage,
    RawRecord,
    Rejection,
    TaskStatus,
    decode_events,
    decode_status,
    decode_task,
    decode_update,
    encode_object,
    encode_task,
    parse_filters,
    partition_for,
)
from stream_cluster.messages.updates import ClusterUpdate
from stream_cluster.snapshot.paths import archive_name
from tests.support.partitions import open_partition

_JSON_UTF8 = "application/json; charset=utf-8"
CONTENT_TYPES = [None, JSON, MSGPACK, _JSON_UTF8, "application/x-msgpack", "text/plain", ""]
MAX_MESSAGE_BYTES = 16_000
_RULES = DecodeRules(lambda account: partition_for(account, 2, "murmur2"), MAX_MESSAGE_BYTES, 128)
_ANYWHERE = DecodeRules(None, MAX_MESSAGE_BYTES, 128)
_STORE_AT_ONCE = 64
_STORED_AT_MOST = 2000
"""A new state begins then, so that storing stays quick."""


class Target:
    """Checks inputs and counts verdicts."""

    def __init__(self) -> None:
        self.inputs = 0
        self.verdicts: Counter[str] = Counter()
        """Rejections of objects by reason, and accepted ones by action."""
        self.others: Counter[str] = Counter()
        """What the other decoders said."""
        self.stored = 0
        self._accepted_count = 0
        self._seen: set[int] = set()
        self._waiting: list[ObjectMessage] = []
        self._folder = tempfile.TemporaryDirectory(prefix="stream-cluster-fuzz-")
        self._states = 0
        self._partition = self._new_partition()

    def check(self, data: bytes) -> bool:
        """Give one input to every decoder; whether any accepts it. Raises whatever is wrong."""
        self.inputs += 1
        before = self._accepted_count
        content_type = CONTENT_TYPES[data[0] % len(CONTENT_TYPES)] if data else None
        value = data[1:]
        record = RawRecord("events", 0, 0, 0, None, value, content_type)
        (result,) = decode_events([record], _RULES)
        if isinstance(result, Rejection):
            self.verdicts[str(result.reason)] += 1
            _check_text(result.detail, result.account_id)
            if result.reason == "wrong_partition":
                (result,) = decode_events([record], _ANYWHERE)
        if isinstance(result, ObjectMessage):
            self.verdicts[f"accepted {result.action}"] += 1
            self._accepted_count += 1
            self._check_accepted(result)
        else:
            assert isinstance(result, Rejection)
        self._check_task(record)
        self._check_others(value, content_type)
        return self._accepted_count > before

    def _check_others(self, value: bytes, content_type: str | None) -> None:
        """One of the smaller decoders, by the length: all of them would take most of the time."""
        which = len(value) % 16
        if which < 2:
            self._count("status", decode_status(value, content_type), TaskStatus, Rejection)
        elif which < 4:
            self._count("update", decode_update(value, content_type), ClusterUpdate, Rejection)
        elif which < 6:
            self._count("filters", parse_filters(value, "face" if which == 4 else "event"), Filters, BadTask)

    def _count(self, what: str, result: object, good: type, bad: type) -> None:
        assert isinstance(result, (good, bad)), result
        is_good = isinstance(result, good)
        self._accepted_count += is_good
        self.others[f"{what} {'accepted' if is_good else 'rejected'}"] += 1

    def _check_task(self, record: RawRecord) -> None:
        task = decode_task(record)
        self._count("task", task, AnyTask, BadTask)
        if isinstance(task, BadTask):
            _check_text(task.message, task.account_id, task.task_id)
            return
        name = archive_name(task.account_id, task.task_id)
        assert len(name.parts) == 2
        assert not name.is_absolute()
        assert not {".", ".."} & set(name.parts)
        for form in (JSON, MSGPACK):
            again = RawRecord("tasks", 0, 0, 0, None, encode_task(task, form), form)
            assert decode_task(again) == task

    def _check_accepted(self, message: ObjectMessage) -> None:
        """It is the same again after a way over the wire, and a state takes it."""
        encoded = encode_object(message, JSON)
        key = hash(encoded)
        if key in self._seen:
            return
        self._seen.add(key)
        for form in (JSON, MSGPACK):
            value = encode_object(message, form)
            # What came in MessagePack may be too large in JSON.
            rules = DecodeRules(None, 10 * MAX_MESSAGE_BYTES, 128)
            (again,) = decode_events([RawRecord("events", 0, 0, 0, None, value, form)], rules)
            assert isinstance(again, ObjectMessage), (again, value)
            if message.action == "upsert":
                assert _plain(again) == _plain(message), (again, message)
        self._waiting.append(message)
        if len(self._waiting) >= _STORE_AT_ONCE:
            self.store()

    def store(self) -> None:
        """Apply what waits to a partition, as a micro-batch."""
        if not self._waiting:
            return
        batch = self._partition.prepare_decoded(
            self._waiting, self._partition.next_offset + len(self._waiting)
        )
        self._partition.commit(batch)
        self.stored += len(self._waiting)
        self._waiting.clear()
        if self._partition.next_offset >= _STORED_AT_MOST:
            self._partition.close()
            self._partition = self._new_partition()

    def _new_partition(self):
        self._states += 1
        for path in Path(self._folder.name).rglob("partition-*"):
            path.unlink()
        return open_partition(self._folder.name)


def _check_text(detail: str, *ids: str | None) -> None:
    """It can be a header, a log line and a status, and does not repeat the whole message."""
    for text in (detail, *ids):
        if text is not None:
            text.encode()
            assert len(text) <= 2000, len(text)
    assert detail


def _plain(message: ObjectMessage) -> dict:
    """The message as values that compare by content."""
    fields = msgspec.structs.asdict(message)
    return fields | {"descriptors": [_plain_descriptor(each) for each in message.descriptors]}


def _plain_descriptor(descriptor) -> tuple:
    vector = np.asarray(descriptor.vector)
    return (
        descriptor.type,
        descriptor.version,
        vector.dtype.str,
        vector.tobytes(),
        descriptor.attribute_id,
        descriptor.image,
        descriptor.quality,
    )
