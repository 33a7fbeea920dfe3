"""One input partition: a plain synchronous core that applies micro-batches of records.

A micro-batch is applied in numbered steps; the bodies below repeat the numbers.

    prepare     1. decode and validate every record
                2. find the spaces of each; a descriptor that does not fit rejects its whole record
                3. in the order of the log: give rows to objects that the space does not hold, note what
                   updates change and which rows deletes remove
                4. match the new codes with the resident ones and with each other; reduce the links; match
                   again what falls apart without the removed rows
    (the caller now makes the rejected records durable in the dead-letter topic)
    commit      5. one transaction: objects, codes, links, counters and next_offset
                6. only then change memory: add codes to the matchers, and remove rows from them

Killed before the end of step 5, the batch was never there, and its records are read again; killed after
it, memory is rebuilt from the database. Either way every record is applied exactly once.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from stream_cluster.errors import StateCorrupt
from stream_cluster.faults import fault_point
from stream_cluster.matching import RecallSample, SpaceMatcher
from stream_cluster.messages import DecodeRules, ObjectMessage, RawRecord, Rejection, decode_events
from stream_cluster.model import DescriptorType
from stream_cluster.state import tasks
from stream_cluster.state.batch import Batch, Outcome, outcome
from stream_cluster.state.chunks import read_codes
from stream_cluster.state.compactions import Compactions
from stream_cluster.state.database import (
    BUSY_TIMEOUT_MS,
    Synchronous,
    explain_errors,
    last_vacuum,
    open_writer,
    transaction,
    vacuum,
)
from stream_cluster.state.gaps import LastRecord, digest_of, note_last_record
from stream_cluster.state.offsets import Offsets
from stream_cluster.state.order import order_messages
from stream_cluster.state.removal import plan_removal
from stream_cluster.state.resident import DEFAULT_MAX_BYTES, SMALL_ROWS, ResidentSpaces
from stream_cluster.state.retention import Sweeper
from stream_cluster.state.second_chance import search_again
from stream_cluster.state.space import FloorOf, Space, SpaceBatch, encode_batch, load_spaces, match_batch
from stream_cluster.state.store import store_batch
from stream_cluster.state.updates import UpdateOptions, Updates, open_updates
from stream_cluster.state.view import PartitionView

_T = TypeVar("_T")
_NO_OFFSETS: Mapping[tuple[str, int], int] = MappingProxyType({})

MatcherFactory = Callable[[int, Space], SpaceMatcher]
"""Called with a dimension and a space: an empty matcher for it."""


@dataclass(frozen=True, slots=True)
class PartitionIdentity:
    """What a partition's database must agree with."""

    topic: str
    partition: int
    partitions: int
    partitioner: str

    def meta(self) -> dict[str, str]:
        """As rows of the `meta` table."""
        return {
            "topic": self.topic,
            "partition": str(self.partition),
            "partitions": str(self.partitions),
            "partitioner": self.partitioner,
        }


class Partition:
    """State and engine of one input partition. Not thread-safe: one call at a time, from any thread."""

    def __init__(
        self,
        path: Path,
        identity: PartitionIdentity,
        rules: DecodeRules,
        new_matcher: MatcherFactory,
        floor_cosine: float | FloorOf,
        *,
        synchronous: Synchronous = "full",
        page_cache_mb: int = 64,
        background: Executor | None = None,
        retention_us: Mapping[DescriptorType, int] | None = None,
        updates: UpdateOptions | None = None,
        small_spaces_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        """Open or create the database and load its larger spaces.

        `floor_cosine` is one for all spaces, or gives that of each. With 1 nothing is matched and no codes
        are kept in memory: the state only collects objects, and every snapshot matches what it selects.
        `background` runs forest compactions beside ingest; without it they run inside `commit`.
        `retention_us` is the greatest age of objects by descriptor type, for `prepare_sweep`.
        With `updates`, each batch puts cluster updates into the outbox; without, what is in it is dropped.
        `small_spaces_bytes` bounds the codes in memory of small spaces, see `resident`.

        Raises:
            StateCorrupt, StateFormatError, ConfigError: see `open_writer`.
        """
        self.path = path
        self.identity = identity
        self._rules = rules
        self._new_matcher = new_matcher
        self._floor_of = floor_cosine if callable(floor_cosine) else lambda _: floor_cosine
        self._resident = ResidentSpaces(small_spaces_bytes)
        self.erased_in_wal: bool
        """Whether the write-ahead log may still hold bytes of deleted objects, see `empty_wal`."""
        self.offsets: Offsets
        """Where to read on, of all topics."""
        self.updates: Updates | None
        """Cluster updates, where they are told; to be called as the partition itself."""
        self.next_offset: int
        """First offset to read after a restart; one past the last applied. 0 when nothing was applied."""
        self._db = open_writer(path, identity.meta(), synchronous=synchronous, page_cache_mb=page_cache_mb)
        try:
            with explain_errors(path):
                self._spaces = load_spaces(self._db)
                self._compactions = Compactions(self._db, path, background)
                self.offsets = Offsets(self._db, path, (identity.topic, identity.partition))
                self.next_offset = self.offsets.of(identity.topic, identity.partition) or 0
                # A log that an earlier process left may hold some.
                self.erased_in_wal = any(space.deleted for space in self._spaces)
                self._sweeper = Sweeper(self._db, self._spaces, retention_us or {})
                for space in self._spaces:
                    # Never lowered: older objects have no links below the floor they came in under.
                    space.floor_cosine = max(space.floor_cosine, self._floor_of(space.key))
                    if space.next_row >= SMALL_ROWS and space.floor_cosine < 1:
                        self._loaded(space)
                self.updates = open_updates(self._db, path, self._spaces, updates)
        except BaseException:
            self._db.close()
            raise

    # -- micro-batches ---------------------------------------------------------------------------------

    def prepare(self, records: Sequence[RawRecord], next_offset: int) -> Batch:
        """Steps 1 to 4: decode, validate and match. Changes neither the database nor memory.

        `next_offset` is the offset to read from after this batch. Records below the partition's own
        next_offset have been applied already and are passed over.
        """
        fresh = [record for record in records if record.offset >= self.next_offset]
        began = time.perf_counter()
        fault_point("decode")
        messages = decode_events(fresh, self._rules)  # 1
        decode_s = time.perf_counter() - began
        batch = self.prepare_decoded(messages, next_offset)
        batch.stage_s["decode"] = decode_s
        batch.rejections = [(fresh[position], rejection) for position, rejection in batch.rejected]
        if fresh:
            last = fresh[-1]
            digest = digest_of(last.key, last.value, last.timestamp_ms)
            batch.last_record = LastRecord(last.offset, digest)
        return batch

    def prepare_decoded(self, messages: Sequence[ObjectMessage | Rejection], next_offset: int) -> Batch:
        """Steps 2 to 4, for messages that did not come as records."""
        began = time.perf_counter()
        with explain_errors(self.path):
            batch = order_messages(self._db, self._spaces, messages, next_offset, self._floor_of)  # 2, 3
            fault_point("match")
            self._match(batch)  # 4
        batch.stage_s["match"] = time.perf_counter() - began
        return batch

    def prepare_sweep(self, now_us: int, max_objects: int, *, begin: bool) -> Batch:
        """A batch without records that deletes some of the objects that are past their age at `now_us`.

        A round goes over all spaces in slices of bounded work: `begin` starts one, later calls carry it on
        while `is_sweeping`. Which objects go depends on the state and `now_us` alone.
        """
        began = time.perf_counter()
        batch = Batch(self.next_offset, 0, cause="retention")
        with explain_errors(self.path):
            self._sweeper.slice(batch, now_us, max_objects, begin=begin)
            self._match(batch)
        batch.stage_s["match"] = time.perf_counter() - began
        return batch

    def prepare_second_chance(self, max_objects: int) -> Batch:
        """A batch without records that adds links which cells missed, of up to `max_objects` objects.

        Spaces whose cluster updates are told are left out: an update tells what new objects change. Empty
        when there is nothing to search for again.
        """
        began = time.perf_counter()
        batch = Batch(self.next_offset, 0)
        with explain_errors(self.path):
            if self.updates is None:
                search_again(batch, self._spaces, max_objects)
        batch.stage_s["match"] = time.perf_counter() - began
        return batch

    @property
    def is_sweeping(self) -> bool:
        """Whether a round of `prepare_sweep` has more to do."""
        return self._sweeper.is_under_way

    def _match(self, batch: Batch) -> None:
        """Step 4."""
        for space_batch in batch.spaces.values():
            space = space_batch.space
            if self.updates is not None:
                space_batch.watch = self.updates.watch(space_batch)
            if space_batch.rows:
                encode_batch(space_batch)
                if space.floor_cosine < 1:
                    match_batch(space_batch, self._loaded(space))
            if space_batch.removed:
                plan_removal(
                    self._db,
                    space_batch,
                    functools.partial(self._loaded, space),
                    keeps_links=space.floor_cosine < 1,
                )
        if self.updates is not None:
            batch.updates = self.updates.plan(batch.spaces.values())

    def commit(self, batch: Batch, other_offsets: Mapping[tuple[str, int], int] | None = None) -> Outcome:
        """Steps 5 and 6: make the batch durable, then change memory.

        `other_offsets` are next_offsets of other topics that became true with it, by (topic, partition).

        Raises:
            StateError: the transaction failed and was rolled back; nothing has changed.
        """
        began = time.perf_counter()
        with explain_errors(self.path), transaction(self._db):  # 5
            self._compactions.exchange(batch)
            for space_batch in batch.spaces.values():
                store_batch(self._db, space_batch)
            if batch.updates is not None:
                batch.updates.store()
            self._store_counters(batch)
            offsets = {self.offsets.log: batch.next_offset, **(other_offsets or {})}
            self.offsets.put(offsets)
            if batch.last_record is not None:
                note_last_record(self._db, batch.last_record)
            fault_point("before_commit")
        committed = time.perf_counter()
        fault_point("after_commit")
        batch.stage_s["commit"] = committed - began
        self.next_offset = batch.next_offset  # 6
        self.offsets.remember(offsets)
        recall: dict[str, RecallSample] = {}
        for space_batch in batch.spaces.values():
            self._remember(space_batch, recall)
            fault_point("memory_update")
        self._resident.used(space_batch.space for space_batch in batch.spaces.values())
        if batch.updates is not None:
            batch.updates.remember()
        self._compactions.exchanged(self._spaces)
        self._compactions.begin(space_batch.space for space_batch in batch.spaces.values())
        batch.stage_s["memory"] = time.perf_counter() - committed
        return outcome(batch, recall)

    def apply(self, records: Sequence[RawRecord], next_offset: int | None = None) -> Outcome:
        """Prepare and commit in one call, for callers with no dead-letter topic between."""
        if next_offset is None:
            next_offset = records[-1].offset + 1 if records else self.next_offset
        return self.commit(self.prepare(records, next_offset))

    def _store_counters(self, batch: Batch) -> None:
        self._db.executemany(
            "INSERT INTO counters (account_id, result, reason, records) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET records = records + excluded.records",
            [(*labels, count) for labels, count in batch.counters.items()],
        )

    def _remember(self, space_batch: SpaceBatch, recall: dict[str, RecallSample]) -> None:
        """Step 6 for one space."""
        space = space_batch.space
        self._spaces.add(space)
        space.next_row += len(space_batch.rows)
        space.pending_links += len(space_batch.links)
        space.known.learn(space_batch.lesson)
        if space_batch.rows and space.floor_cosine < 1:
            matcher = self._loaded(space)
            matcher.add(space_batch.codes)
            matcher.doubt(space_batch.links, len(matcher) - len(space_batch.rows))
            sample = space_batch.recall
            if sample.links_true:
                descriptor_type = space.key.descriptor_type
                true, found = recall.get(descriptor_type, (0, 0))
                recall[descriptor_type] = RecallSample(true + sample.links_true, found + sample.links_found)
        if (removal := space_batch.removal) is not None:
            space.deleted += len(removal.rows)
            if space.matcher is not None:
                space.matcher.remove(removal.rows)
            self._compactions.note_removal(space, removal.rows)
            space.known.forget()
            self.erased_in_wal = True

    # -- spaces and forests ----------------------------------------------------------------------------

    def _loaded(self, space: Space) -> SpaceMatcher:
        """The space's matcher, filled from the database when it is not in memory."""
        if space.matcher is None:
            matcher = self._new_matcher(space.dim, space)
            matcher.restore(codes for _, codes in read_codes(self._db, space.space_id, space.dim))
            if len(matcher) != space.next_row:
                raise StateCorrupt(
                    f"{self.path}: space {space.space_id} has {len(matcher)} codes, expected {space.next_row}"
                )
            space.matcher = matcher
        return space.matcher

    # -- offsets, tasks, views -------------------------------------------------------------------------

    def stored_offset(self, topic: str, partition: int) -> int | None:
        """next_offset of a topic partition as last committed, None when it was never read."""
        return self.offsets.of(topic, partition)

    def accept_gap(self, from_offset: int, to_offset: int, accepted_at: str) -> None:
        """Go on at `to_offset`, lower in a new log, though `from_offset` was needed; remember it."""
        self.offsets.accept_gap(from_offset, to_offset, accepted_at)
        self.next_offset = to_offset

    def begin_at(self, offset: int) -> None:
        """Begin a new state at the first offset that the log still has, and remember it."""
        self.offsets.begin_at(offset)
        self.next_offset = offset

    def add_task(self, task: tasks.StoredTask, offsets: Mapping[tuple[str, int], int]) -> bool:
        """Remember a task together with the task topic's offsets; False when it is known already."""
        return self.change_tasks(tasks.add_task, task, offsets=offsets)

    def change_tasks(
        self, change: Callable[..., _T], *arguments: Any, offsets: Mapping[tuple[str, int], int] = _NO_OFFSETS
    ) -> _T:
        """Run a function of `state.tasks` in one transaction with the task topic's offsets."""
        with explain_errors(self.path), transaction(self._db):
            self.offsets.put(offsets)
            result = change(self._db, *arguments)
        self.offsets.remember(offsets)
        return result

    def unfinished_tasks(self) -> list[tasks.StoredTask]:
        """Tasks to be run (again) after a restart."""
        return tasks.unfinished_tasks(self._db)

    def ended_tasks(self, limit: int) -> list[tasks.StoredTask]:
        """The tasks that ended last, the latest first."""
        return tasks.ended_tasks(self._db, limit)

    def empty_wal(self) -> bool:
        """Copy the write-ahead log into the database and cut it to nothing; true if that was possible now.

        The database itself holds zeros where deleted objects were, but the log keeps earlier pages until it
        is emptied. A view that is open prevents that; the caller tries again.
        """
        with explain_errors(self.path):
            self._db.execute("PRAGMA busy_timeout = 0")
            try:
                busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if not busy:
            self.erased_in_wal = False
        return not busy

    def vacuum_due_us(self, interval_us: int) -> int | None:
        """When to rewrite the database, in microseconds since the epoch; None: nothing was deleted."""
        deleted, vacuumed_us = last_vacuum(self._db)
        is_due = sum(space.deleted for space in self._spaces) > deleted
        return vacuumed_us + interval_us if is_due else None

    def vacuum(self, now_us: int) -> None:
        """Rewrite the database: what was deleted gives up its room, and no page keeps a stale copy of it.

        Takes seconds for each gigabyte, and as much room again for a time. Views stay as they are.

        Raises:
            StateError: there is no room for it; nothing has changed.
        """
        with explain_errors(self.path):
            vacuum(self._db, sum(space.deleted for space in self._spaces), now_us)
        self.erased_in_wal = True

    def view(self) -> PartitionView:
        """A view of the state as it is after the last commit; later batches do not change it."""
        return PartitionView(self.path)

    def spaces(self) -> list[Space]:
        """The spaces, for metrics; read only."""
        return list(self._spaces)

    def close(self) -> None:
        """Wait for background work, save caches, close the database."""
        self._compactions.close()
        for space in self._spaces:
            if space.matcher is not None:
                space.matcher.save_cache()
                space.matcher.close()
        self._db.close()
