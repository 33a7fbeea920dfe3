"""What a micro-batch is before and after its commit: plain facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stream_cluster.matching import RecallSample
from stream_cluster.messages import RawRecord, Rejection
from stream_cluster.model import SpaceKey
from stream_cluster.state.gaps import LastRecord
from stream_cluster.state.space import SpaceBatch
from stream_cluster.state.updates import BatchUpdates

Cause = Literal["request", "retention"]


@dataclass(slots=True)
class Batch:
    """A micro-batch after `prepare`: everything that `commit` will do, nothing done yet.

    After `commit` it says what has changed, by space: `SpaceBatch.new_objects` with `links`, `removed` with
    `Removal.repaired`, and `updates`.
    """

    next_offset: int
    records: int
    rejected: list[tuple[int, Rejection]] = field(default_factory=list)
    """(position in the batch, rejection)."""
    rejections: list[tuple[RawRecord, Rejection]] = field(default_factory=list)
    """The same with their records, when the batch was made from records."""
    spaces: dict[SpaceKey, SpaceBatch] = field(default_factory=dict)
    counters: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Records by (account_id, result, reason)."""
    cause: Cause = "request"
    """Why objects are deleted."""
    searched_again: int = 0
    """Objects of a second chance."""
    updates: BatchUpdates | None = None
    """Cluster updates, where they are told."""
    stage_s: dict[str, float] = field(default_factory=dict)
    last_record: LastRecord | None = None
    """When the batch was made from records."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The facts of a committed micro-batch; metrics and logs are made from it."""

    records: int
    accepted: int
    duplicates: int
    """Records all of whose objects were there already."""
    updated: int
    """Update records whose object was there."""
    deleted: int
    """Delete records of which at least one object was there."""
    unknown: int
    """Update and delete records none of whose objects was there."""
    rejected: Mapping[str, int]
    """Rejected records by reason."""
    objects: Mapping[str, int]
    """New objects by descriptor type."""
    objects_deleted: Mapping[str, int]
    """Deleted objects by descriptor type; some may have been new in this batch."""
    cause: Cause
    """Why they were deleted."""
    links: Mapping[str, int]
    """Links above the floor found for them, by descriptor type."""
    recall: Mapping[str, RecallSample]
    """What the exact samples of approximate matchers found, by descriptor type."""
    next_offset: int
    stage_s: Mapping[str, float]
    """Seconds spent by stage: decode, match, commit, memory."""


def outcome(batch: Batch, recall: Mapping[str, RecallSample]) -> Outcome:
    """The facts of a batch that has been committed."""
    results: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for (_, result, reason), count in batch.counters.items():
        results[result] += count
        if reason:
            rejected[reason] += count
    objects: Counter[str] = Counter()
    objects_deleted: Counter[str] = Counter()
    links: Counter[str] = Counter()
    for key, space_batch in batch.spaces.items():
        objects[key.descriptor_type] += len(space_batch.rows)
        objects_deleted[key.descriptor_type] += len(space_batch.removed)
        links[key.descriptor_type] += space_batch.links_seen
    return Outcome(
        records=batch.records,
        accepted=results["accepted"],
        duplicates=results["duplicate"],
        updated=results["updated"],
        deleted=results["deleted"],
        unknown=results["unknown_object"],
        rejected=rejected,
        objects=objects,
        objects_deleted=objects_deleted,
        cause=batch.cause,
        links=links,
        recall=recall,
        next_offset=batch.next_offset,
        stage_s=batch.stage_s,
    )
