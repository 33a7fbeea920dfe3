"""Partitions on disk, fed with small made-up objects, and snapshots of them."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stream_cluster.config import Settings
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import (
    Content,
    DecodeRules,
    Descriptor,
    Metadata,
    ObjectMessage,
    RawRecord,
    TaskRequest,
    encode_object,
    format_time,
)
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.snapshot.request import find_space, resolve_request
from stream_cluster.snapshot.run import run_snapshot
from stream_cluster.snapshot.selection import select
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity

T0_US = 1_777_000_000_000_000
NOW_US = T0_US + 86_400_000_000
FLOOR = 0.45
RULES = DecodeRules(partition_of=None, max_message_bytes=1 << 20, uint8_offset=128)
IDENTITY = PartitionIdentity("events", 0, 1, "murmur2")


def vectors(count, *, people=6, dim=8, seed=0):
    """Unit vectors of `count` objects, some similar and some in between; float32, (count, dim)."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((people, dim))
    made = centres[random.integers(people, size=count)] + 0.5 * random.standard_normal((count, dim))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def message(
    number,
    vector,
    *,
    account="acme",
    kind="face",
    version=1,
    object_type="event",
    image=None,
    quality=None,
    **metadata,
):
    """An upsert; objects are a second apart, and `number` names them."""
    metadata.setdefault("create_time_us", T0_US + number * 1_000_000)
    return ObjectMessage(
        account_id=account,
        object_type=object_type,
        action="upsert",
        object_ids=(f"{account}-{number:05}",),
        metadata=Metadata(**metadata),
        descriptors=(Descriptor(kind, version, np.asarray(vector), image=image, quality=quality),),
    )


def deletion(*ids, account="acme", object_type="event", everything=()):
    """A delete of these objects, or with `everything` of all objects of these types."""
    return ObjectMessage(
        account_id=account,
        object_type=object_type,
        action="delete",
        object_ids=ids,
        metadata=Metadata(),
        descriptors=(),
        everything=everything,
    )


def records(messages, *, first_offset=0):
    """The messages as consecutive records of the partition."""
    return [
        RawRecord(
            "events", 0, offset, 1_777_000_000_000, message.account_id.encode(), encode_object(message), None
        )
        for offset, message in enumerate(messages, first_offset)
    ]


@contextmanager
def directory():
    """A temporary directory (hypothesis runs many examples within one test's tmp_path)."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def open_partition(folder, *, floor=FLOOR, settings=None, identity=IDENTITY, **options):
    """The partition whose database is in `folder`, created when missing."""
    matching = (settings or Settings()).matching
    options.setdefault("synchronous", "off")
    return Partition(
        database_path(Path(folder), identity.partition),
        identity,
        RULES,
        lambda dim, _: SpaceMatcher(dim, matching),
        floor,
        **options,
    )


def partition_of(folder, messages):
    """A new partition that holds these messages."""
    partition = open_partition(folder)
    partition.apply(records(messages))
    return partition


def apply_in_batches(partition, all_records, sizes):
    """Apply records in batches of the given sizes; the last batch takes the rest."""
    begin = 0
    for size in [*sizes, len(all_records)]:
        part = all_records[begin : begin + size]
        if part:
            partition.apply(part)
        begin += size


def snapshot(partition, target, *, account="acme", task_id="task", settings=None, **content):
    """Run a task on the partition as it is; returns the archive's path and the result."""
    content.setdefault("objects_type", "events")
    task = TaskRequest(task_id=task_id, account_id=account, content=Content(**content))
    request = resolve_request(task, settings or Settings(), NOW_US)
    with partition.view() as view:
        result = run_snapshot(
            view, request, Path(target), interrupt=Interrupt(), progress=no_progress, as_of=None
        )
    return Path(target), result


def chosen(partition, filters, *, object_type="event", account="acme"):
    """Ids of the objects that a task with these filters is about, and the selection."""
    task = TaskRequest(
        task_id="t",
        account_id=account,
        content=Content(objects_type=f"{object_type}s", filters=filters),
    )
    request = resolve_request(task, Settings(), NOW_US)
    with partition.view() as view:
        selection = select(
            view,
            find_space(view, request),
            request.conditions,
            with_tracks=False,
            interrupt=Interrupt(),
            read_time_us=NOW_US,
        )
    return set(selection.ids), selection


def clusters_of(archive):
    """The set of clusters in an archive, each a frozenset of object ids."""
    with zipfile.ZipFile(archive) as zipped:
        lines = [json.loads(line) for line in zipped.read("clusters.jsonl").splitlines()]
    assert [line["cluster"] for line in lines] == list(range(len(lines)))
    assert all(line["size"] == len(line["objects"]) for line in lines)
    return {frozenset(line["objects"]) for line in lines}


def rows_of(archive):
    """Rows of report.csv in an archive, the header first."""
    with zipfile.ZipFile(archive) as zipped:
        return list(csv.reader(io.StringIO(zipped.read("report.csv").decode(), newline="")))


def manifest_of(archive):
    """manifest.json of an archive."""
    with zipfile.ZipFile(archive) as zipped:
        return json.loads(zipped.read("manifest.json"))


def time_text(number):
    """The time of object `number` as filters carry it."""
    return format_time(T0_US + number * 1_000_000)
