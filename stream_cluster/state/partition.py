"""One input partition: a plain synchronous core that applies micro-batches of records.

A micro-batch is applied in numbered steps; the bodies below repeat the numbers.

    prepare     1. decode and validate every record
                2. sort the descriptors into spaces; one that does not fit rejects its whole record
                3. leave out objects that the space holds already
                4. match the new codes with the resident ones and with each other; reduce the links
    (the caller now makes the rejected records durable in the dead-letter topic)
    commit      5. one transaction: objects, codes, links, counters and next_offset
                6. only then change memory: add the codes to the matchers

Killed before the end of step 5, the batch was never there, and its records are read again; killed after
it, memory is rebuilt from the database. Either way every record is applied exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from stream_cluster.errors import StateCorrupt
from stream_cluster.matching import RecallSample, SpaceMatcher
from stream_cluster.messages import DecodeRules, ObjectMessage, RawRecord, Reason, Rejection, decode_events
from stream_cluster.model import SpaceKey
from stream_cluster.state import tasks
from stream_cluster.state.batch import Batch, Outcome, outcome
from stream_cluster.state.chunks import read_codes, write_codes, write_links
from stream_cluster.state.compaction import Compaction, Inline, compact, exchange, is_due
from stream_cluster.state.database import (
    Synchronous,
    explain_errors,
    load_offsets,
    open_writer,
    transaction,
)
from stream_cluster.state.objects import insert_objects, known_ids, metadata_row
from stream_cluster.state.space import Space, SpaceBatch, encode_batch, load_spaces, match_batch
from stream_cluster.state.view import PartitionView

MatcherFactory = Callable[[int, int], SpaceMatcher]
"""Called with (dim, space_id): an empty matcher for a space."""
FloorOf = Callable[[SpaceKey], float]
"""The cosine at or below which links of a space are not kept."""

# Spaces with at least this many rows are loaded when the partition opens, smaller ones when first needed:
# a hundred thousand small accounts must not delay a start, a large one must not delay its first event.
_EAGER_ROWS = 10_000


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
    ) -> None:
        """Open or create the database and load its larger spaces.

        `floor_cosine` is one for all spaces, or gives that of each. With 1 nothing is matched and no codes
        are kept in memory: the state only collects objects, and every snapshot matches what it selects.
        `background` runs forest compactions beside ingest; without it they run inside `commit`.

        Raises:
            StateCorrupt, StateFormatError, ConfigError: see `open_writer`.
        """
        self.path = path
        self.identity = identity
        self._rules = rules
        self._new_matcher = new_matcher
        self._floor_of = floor_cosine if callable(floor_cosine) else lambda _: floor_cosine
        self._background = background or Inline()
        self._compactions: dict[int, Future[Compaction]] = {}
        self.next_offset: int
        """First offset to read after a restart; one past the last applied. 0 when nothing was applied."""
        self._db = open_writer(path, identity.meta(), synchronous=synchronous, page_cache_mb=page_cache_mb)
        try:
            with explain_errors(path):
                self._spaces = load_spaces(self._db)
                self._account_ids = {key.account_id for key in self._spaces}
                self._offsets = load_offsets(self._db)
                self.next_offset = self.stored_offset(identity.topic, identity.partition) or 0
                for space in self._spaces.values():
                    # Never lowered: older objects have no links below the floor they came in under.
                    space.floor_cosine = max(space.floor_cosine, self._floor_of(space.key))
                    if space.next_row >= _EAGER_ROWS and space.floor_cosine < 1:
                        self._loaded(space)
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
        messages = decode_events(fresh, self._rules)  # 1
        decode_s = time.perf_counter() - began
        batch = self.prepare_decoded(messages, next_offset)
        batch.stage_s["decode"] = decode_s
        batch.rejections = [(fresh[position], rejection) for position, rejection in batch.rejected]
        return batch

    def prepare_decoded(self, messages: Sequence[ObjectMessage | Rejection], next_offset: int) -> Batch:
        """Steps 2 to 4, for messages that did not come as records."""
        batch = Batch(next_offset, len(messages))
        began = time.perf_counter()
        with explain_errors(self.path):
            accepted: list[ObjectMessage] = []
            for position, message in enumerate(messages):
                verdict = message if isinstance(message, Rejection) else self._assign(batch, message)  # 2
                if isinstance(verdict, Rejection):
                    self._reject(batch, position, verdict)
                else:
                    accepted.append(verdict)
            self._drop_known(batch)  # 3
            self._add_new(batch, accepted)
            for space_batch in batch.spaces.values():
                if space_batch.rows:
                    encode_batch(space_batch)
                    if space_batch.space.floor_cosine < 1:
                        match_batch(space_batch, self._loaded(space_batch.space))  # 4
        batch.stage_s["match"] = time.perf_counter() - began
        return batch

    def commit(self, batch: Batch, other_offsets: Mapping[tuple[str, int], int] | None = None) -> Outcome:
        """Steps 5 and 6: make the batch durable, then change memory.

        `other_offsets` are next_offsets of other topics that became true with it, by (topic, partition).

        Raises:
            StateError: the transaction failed and was rolled back; nothing has changed.
        """
        began = time.perf_counter()
        with explain_errors(self.path), transaction(self._db):  # 5
            for space_batch in batch.spaces.values():
                self._store(space_batch)
            self._store_counters(batch)
            own = self.identity.topic, self.identity.partition
            offsets = {own: batch.next_offset, **(other_offsets or {})}
            self._store_offsets(offsets)
            compactions = self._finished_compactions()
            for compaction in compactions:
                exchange(self._db, compaction)
        committed = time.perf_counter()
        batch.stage_s["commit"] = committed - began
        self.next_offset = batch.next_offset  # 6
        self._remember_offsets(offsets)
        recall: dict[str, RecallSample] = {}
        for key, space_batch in batch.spaces.items():
            self._remember(key, space_batch, recall)
        for compaction in compactions:
            self._adopt(compaction)
        self._start_compactions(batch)
        batch.stage_s["memory"] = time.perf_counter() - committed
        return outcome(batch, recall)

    def apply(self, records: Sequence[RawRecord], next_offset: int | None = None) -> Outcome:
        """Prepare and commit in one call, for callers with no dead-letter topic between."""
        if next_offset is None:
            next_offset = records[-1].offset + 1 if records else self.next_offset
        return self.commit(self.prepare(records, next_offset))

    def _assign(self, batch: Batch, message: ObjectMessage) -> ObjectMessage | Rejection:
        """Find the space of every descriptor; create provisional ones; reject what does not fit."""
        account_id = message.account_id
        if message.action != "upsert":
            return Rejection(
                Reason.UNSUPPORTED_ACTION, f"action {message.action!r} is not available yet", account_id
            )
        keys = [
            SpaceKey(account_id, message.object_type, descriptor.type, descriptor.version)
            for descriptor in message.descriptors
        ]
        for key, descriptor in zip(keys, message.descriptors, strict=True):
            space = self._find(batch, key)
            dim = len(descriptor.vector)
            if space is not None and space.dim != dim:
                return Rejection(
                    Reason.WRONG_DIMENSION,
                    f"{dim} values, but {key.descriptor_type} version {key.version} of this account "
                    f"has {space.dim}",
                    account_id,
                )
        for key, descriptor in zip(keys, message.descriptors, strict=True):
            space_batch = batch.spaces.get(key)
            if space_batch is None:
                space = self._spaces.get(key)
                is_new = space is None
                if space is None:
                    dim = len(descriptor.vector)
                    space = Space(self._next_space_id(batch), key, dim, self._floor_of(key))
                space_batch = batch.spaces[key] = SpaceBatch(space, is_new)
            space_batch.candidates.append((message.object_id, descriptor))
        return message

    def _find(self, batch: Batch, key: SpaceKey) -> Space | None:
        provisional = batch.spaces.get(key)
        return provisional.space if provisional is not None else self._spaces.get(key)

    def _next_space_id(self, batch: Batch) -> int:
        # Space ids are never reused: spaces are never removed.
        return len(self._spaces) + sum(part.is_new for part in batch.spaces.values()) + 1

    def _drop_known(self, batch: Batch) -> None:
        for space_batch in batch.spaces.values():
            ids = [object_id for object_id, _ in space_batch.candidates]
            stored = known_ids(self._db, space_batch.space.space_id, ids) if not space_batch.is_new else set()
            space_batch.drop_known(stored)

    def _add_new(self, batch: Batch, accepted: list[ObjectMessage]) -> None:
        """Give rows to new objects, and count every record as accepted or duplicate."""
        previous, metadata = None, ()
        for message in accepted:
            # Objects without metadata may share an empty one.
            if message.metadata is not previous:
                previous, metadata = message.metadata, metadata_row(message.metadata)
            is_new = False
            for descriptor in message.descriptors:
                key = SpaceKey(message.account_id, message.object_type, descriptor.type, descriptor.version)
                is_new |= batch.spaces[key].take(message.object_id, metadata, descriptor)
            batch.counters[message.account_id, "accepted" if is_new else "duplicate", ""] += 1

    def _reject(self, batch: Batch, position: int, rejection: Rejection) -> None:
        batch.rejected.append((position, rejection))
        # Counted under the account only if it is one of ours: made-up ids must not grow the table. Accounts
        # that are new in this batch are, else the counts would depend on where batches begin.
        known = rejection.account_id in self._account_ids or any(
            key.account_id == rejection.account_id for key in batch.spaces
        )
        batch.counters[rejection.account_id or "" if known else "", "rejected", rejection.reason.value] += 1

    def _store(self, space_batch: SpaceBatch) -> None:
        space = space_batch.space
        if space_batch.is_new:
            self._db.execute(
                "INSERT INTO spaces "
                "(space_id, account_id, object_type, descriptor_type, version, dim, floor) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (space.space_id, *space.key, space.dim, space.floor_cosine),
            )
        if space_batch.rows:
            insert_objects(self._db, space_batch.rows)
            write_codes(self._db, space.space_id, space.next_row, space_batch.codes)
            write_links(self._db, space.space_id, space_batch.links, merged=False)
        self._db.execute(
            "UPDATE spaces SET next_row = ?, floor = ?, duplicates = duplicates + ?, "
            "links_seen = links_seen + ? WHERE space_id = ?",
            (
                space.next_row + len(space_batch.rows),
                space.floor_cosine,
                space_batch.duplicates,
                space_batch.links_seen,
                space.space_id,
            ),
        )

    def _store_counters(self, batch: Batch) -> None:
        self._db.executemany(
            "INSERT INTO counters (account_id, result, reason, records) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET records = records + excluded.records",
            [(*labels, count) for labels, count in batch.counters.items()],
        )

    def _store_offsets(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._db.executemany(
            "INSERT INTO offsets (topic, partition, next_offset) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
            [(topic, partition, offset) for (topic, partition), offset in offsets.items()],
        )

    def _remember_offsets(self, offsets: Mapping[tuple[str, int], int]) -> None:
        for label, offset in offsets.items():
            self._offsets[label] = max(offset, self._offsets.get(label, 0))

    def _remember(self, key: SpaceKey, space_batch: SpaceBatch, recall: dict[str, RecallSample]) -> None:
        """Step 6 for one space."""
        space = space_batch.space
        self._spaces[key] = space
        self._account_ids.add(key.account_id)
        space.next_row += len(space_batch.rows)
        space.pending_links += len(space_batch.links)
        if space_batch.rows and space_batch.space.floor_cosine < 1:
            matcher = self._loaded(space)
            matcher.add(space_batch.codes)
            sample = matcher.take_recall()
            if sample.links_true:
                true, found = recall.get(key.descriptor_type, (0, 0))
                recall[key.descriptor_type] = RecallSample(
                    true + sample.links_true, found + sample.links_found
                )

    # -- spaces and forests ----------------------------------------------------------------------------

    def _loaded(self, space: Space) -> SpaceMatcher:
        """The space's matcher, filled from the database when this is its first use."""
        if space.matcher is None:
            matcher = self._new_matcher(space.dim, space.space_id)
            for _, codes in read_codes(self._db, space.space_id, space.dim):
                matcher.add(codes)
            if len(matcher) != space.next_row:
                raise StateCorrupt(
                    f"{self.path}: space {space.space_id} has {len(matcher)} codes, expected {space.next_row}"
                )
            space.matcher = matcher
        return space.matcher

    def _finished_compactions(self) -> list[Compaction]:
        return [job.result() for job in self._compactions.values() if job.done()]

    def _adopt(self, compaction: Compaction) -> None:
        del self._compactions[compaction.space_id]
        space = next(space for space in self._spaces.values() if space.space_id == compaction.space_id)
        space.merged_links = len(compaction.forest)
        space.pending_links = self._db.execute(
            "SELECT coalesce(sum(links), 0) FROM links WHERE space_id = ? AND NOT merged",
            (compaction.space_id,),
        ).fetchone()[0]

    def _start_compactions(self, batch: Batch) -> None:
        for space_batch in batch.spaces.values():
            space = space_batch.space
            if space.space_id not in self._compactions and is_due(space.merged_links, space.pending_links):
                self._compactions[space.space_id] = self._background.submit(
                    compact, self.path, space.space_id
                )

    # -- offsets, tasks, views -------------------------------------------------------------------------

    def stored_offset(self, topic: str, partition: int) -> int | None:
        """next_offset of a topic partition as last committed, None when it was never read."""
        return self._offsets.get((topic, partition))

    def store_offsets(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Make next_offsets durable on their own, outside a micro-batch."""
        with explain_errors(self.path), transaction(self._db):
            self._store_offsets(offsets)
        self._remember_offsets(offsets)

    def add_task(self, task: tasks.StoredTask, offsets: Mapping[tuple[str, int], int]) -> bool:
        """Remember a task together with the task topic's offsets; False when it is known already."""
        with explain_errors(self.path), transaction(self._db):
            self._store_offsets(offsets)
            is_new = tasks.add_task(self._db, task)
        self._remember_offsets(offsets)
        return is_new

    def set_task_status(self, account_id: str, task_id: str, status: tasks.TaskState) -> None:
        """Make a task's new status durable."""
        with explain_errors(self.path), transaction(self._db):
            tasks.set_task_status(self._db, account_id, task_id, status)

    def unfinished_tasks(self) -> list[tasks.StoredTask]:
        """Tasks to be run (again) after a restart."""
        return tasks.unfinished_tasks(self._db)

    def view(self) -> PartitionView:
        """A view of the state as it is after the last commit; later batches do not change it."""
        return PartitionView(self.path)

    def spaces(self) -> list[Space]:
        """The spaces, for metrics; read only."""
        return list(self._spaces.values())

    def close(self) -> None:
        """Wait for background work, save caches, close the database."""
        for job in self._compactions.values():
            # One that waits for a thread may wait for this very one.
            if not job.cancel():
                job.exception()
        for space in self._spaces.values():
            if space.matcher is not None:
                space.matcher.save_cache()
                space.matcher.close()
        self._db.close()
