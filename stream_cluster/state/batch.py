"""What a micro-batch is before and after its commit: plain facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from stream_cluster.matching import RecallSample
from stream_cluster.messages import RawRecord, Rejection
from stream_cluster.model import SpaceKey
from stream_cluster.state.space import SpaceBatch


@dataclass(slots=True)
class Batch:
    """A micro-batch after `prepare`: everything that `commit` will do, nothing done yet."""

    next_offset: int
    records: int
    rejected: list[tuple[int, Rejection]] = field(default_factory=list)
    """(position in the batch, rejection)."""
    rejections: list[tuple[RawRecord, Rejection]] = field(default_factory=list)
    """The same with their records, when the batch was made from records."""
    spaces: dict[SpaceKey, SpaceBatch] = field(default_factory=dict)
    counters: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Records by (account_id, result, reason)."""
    stage_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The facts of a committed micro-batch; metrics and logs are made from it."""

    records: int
    accepted: int
    duplicates: int
    """Records all of whose objects were there already."""
    rejected: Mapping[str, int]
    """Rejected records by reason."""
    objects: Mapping[str, int]
    """New objects by descriptor type."""
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
    links: Counter[str] = Counter()
    for key, space_batch in batch.spaces.items():
        objects[key.descriptor_type] += len(space_batch.rows)
        links[key.descriptor_type] += space_batch.links_seen
    return Outcome(
        records=batch.records,
        accepted=results["accepted"],
        duplicates=results["duplicate"],
        rejected=rejected,
        objects=objects,
        links=links,
        recall=recall,
        next_offset=batch.next_offset,
        stage_s=batch.stage_s,
    )
