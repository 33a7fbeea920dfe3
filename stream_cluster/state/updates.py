"""Cluster updates of one partition: what each batch does to the clusters at the default threshold.

Each space has its clusters in memory, loaded from the forest when first needed. A batch's updates are made in
its preparation, stored in its transaction, and only then memory follows, as with all other state.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stream_cluster.config.similarity import SimilaritySettings
from stream_cluster.graph.disjoint_sets import DisjointSets
from stream_cluster.matching.scale import Scale, make_scale
from stream_cluster.messages.updates import (
    MAX_IDS,
    ChangeUpdate,
    ClusterPart,
    ClusterUpdate,
    ObjectUpdate,
    ResetUpdate,
    StrongestLink,
    encode_update,
)
from stream_cluster.model import SpaceKey
from stream_cluster.state.database import explain_errors, transaction
from stream_cluster.state.live import Part, Plan, load_sets, plan_batch, whole_space
from stream_cluster.state.outbox import Outbox, OutboxRow, Told
from stream_cluster.state.space import Space, SpaceBatch, Spaces
from stream_cluster.state.watch import Watch

# The first thousands of small spaces must not make one slice long.
_SPACES_PER_SLICE = 1000


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """For a partition that tells cluster updates."""

    similarity: SimilaritySettings
    """Scales and default thresholds."""
    end: Told | None
    """The last update of this partition in the topic."""
    now_us: int
    """The present in microseconds since the epoch: the number of an epoch of updates that may begin."""


@dataclass(frozen=True, slots=True)
class _Threshold:
    """The threshold in force in a space."""

    cosine: float
    value: float
    """On the scale."""
    scale: Scale


class Updates:
    """Makes and stores the cluster updates of a partition."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, spaces: Spaces, options: UpdateOptions
    ) -> None:
        """Over the database of `path`, when the floors of its spaces are set."""
        self._db = connection
        self._path = path
        self._spaces = spaces
        self._similarity = options.similarity
        self.outbox = Outbox(connection)
        self.outbox.switch_on(options.end, options.now_us)
        self._sets: dict[int, DisjointSets] = {}
        self._told: dict[int, float] = dict(
            connection.execute("SELECT space_id, updates_cosine FROM spaces WHERE updates_cosine NOT NULL")
        )
        self._untold = [space for space in spaces if not self._is_told(space)][::-1]
        """Spaces whose clusters have to be told as a whole before updates go on."""
        self._forget_other_thresholds()

    @property
    def has_untold(self) -> bool:
        """Whether `restate` has more to do."""
        return bool(self._untold)

    @property
    def nbytes(self) -> int:
        """Memory of the clusters."""
        return sum(sets.nbytes for sets in self._sets.values())

    # -- batches ---------------------------------------------------------------------------------------

    def watch(self, batch: SpaceBatch) -> Watch | None:
        """For a batch's part in a space that updates are told of."""
        space = batch.space
        if batch.is_new:
            sets = DisjointSets(np.empty(0, np.int32), np.empty(0, np.uint32))
        elif self._is_told(space):
            sets = self._loaded(space)
        else:
            return None  # `restate` tells what is there then
        return Watch(space.next_row, len(batch.rows), self._threshold(space).cosine, sets, batch.removed)

    def plan(self, batches: Iterable[SpaceBatch]) -> BatchUpdates:
        """The updates of prepared parts. Changes nothing."""
        writer = _Writer(self.outbox)
        plans = []
        for batch in batches:
            if batch.watch is None:
                continue
            plan = plan_batch(self._db, batch, batch.watch)
            plans.append((batch, batch.watch, plan))
            writer.turn_to(batch.space.key, self._threshold(batch.space))
            writer.change(plan)
            writer.arrivals(plan)
        return BatchUpdates(self, writer.rows, plans)

    def note_told(self, space: Space, threshold_cosine: float) -> None:
        """Store that updates at this threshold are told of a space."""
        self._db.execute(
            "UPDATE spaces SET updates_cosine = ? WHERE space_id = ?", (threshold_cosine, space.space_id)
        )

    def remember(self, space: Space, sets: DisjointSets, threshold_cosine: float) -> None:
        """Change memory, after the commit."""
        self._sets[space.space_id] = sets
        self._told[space.space_id] = threshold_cosine

    # -- whole spaces ----------------------------------------------------------------------------------

    def restate(self, max_objects: int) -> int:
        """Tell the clusters of some spaces as a whole, at most one more than has `max_objects`.

        In a transaction for each space, between batches. Returns the number of updates.
        """
        before = self.outbox.last_seq
        for _ in range(_SPACES_PER_SLICE):
            if not self._untold or max_objects <= 0:
                break
            space = self._untold[-1]
            with explain_errors(self._path):
                self._restate(space)
            self._untold.pop()
            max_objects -= space.next_row - space.deleted
        return self.outbox.last_seq - before

    def trim_outbox(self) -> None:
        """Delete acknowledged updates in a transaction of their own, between batches."""
        with explain_errors(self._path), transaction(self._db):
            self.outbox.trim()

    def _restate(self, space: Space) -> None:
        threshold = self._threshold(space)
        sets = load_sets(self._db, space, threshold.cosine)
        writer = _Writer(self.outbox)
        writer.turn_to(space.key, threshold)
        with transaction(self._db):
            self.outbox.trim()
            # Of a large space, a few are in memory at a time.
            stored: list[OutboxRow] = []
            for _ in writer.reset(whole_space(self._db, space, sets)):
                self.outbox.insert(writer.rows)
                stored = writer.rows or stored
                writer.rows = []
            self.note_told(space, threshold.cosine)
        self.outbox.inserted(stored)
        self.remember(space, sets, threshold.cosine)

    def _forget_other_thresholds(self) -> None:
        """At once: batches that come before the restatement are not told at the old threshold either."""
        old = [space.space_id for space in self._untold if space.space_id in self._told]
        if old:
            with transaction(self._db):
                self._db.executemany(
                    "UPDATE spaces SET updates_cosine = NULL WHERE space_id = ?", [(one,) for one in old]
                )

    # -- spaces ----------------------------------------------------------------------------------------

    def _is_told(self, space: Space) -> bool:
        return self._told.get(space.space_id) == self._threshold(space).cosine

    def _loaded(self, space: Space) -> DisjointSets:
        sets = self._sets.get(space.space_id)
        if sets is None:
            sets = load_sets(self._db, space, self._threshold(space).cosine)
            self._sets[space.space_id] = sets
        return sets

    def _threshold(self, space: Space) -> _Threshold:
        """The default of the version, but never below the floor of the space."""
        settings = self._similarity.of_version(space.key.descriptor_type, space.key.version)
        scale = make_scale(settings)
        cosine, value = float(scale.to_cosine(settings.default_threshold)), settings.default_threshold
        if space.floor_cosine > cosine:
            cosine, value = space.floor_cosine, float(scale.to_scale(space.floor_cosine))
        return _Threshold(cosine, value, scale)


@dataclass(frozen=True, slots=True)
class BatchUpdates:
    """The updates of one prepared batch."""

    updates: Updates
    rows: list[OutboxRow]
    plans: list[tuple[SpaceBatch, Watch, Plan]]

    def store(self) -> None:
        """Put them into the outbox, in the transaction of the batch."""
        self.updates.outbox.trim()
        self.updates.outbox.insert(self.rows, name_deleted=any(plan.deleted for *_, plan in self.plans))
        for batch, watch, _ in self.plans:
            if batch.is_new:
                self.updates.note_told(batch.space, watch.threshold_cosine)

    def remember(self) -> None:
        """Change memory, after the commit."""
        self.updates.outbox.inserted(self.rows)
        for batch, watch, plan in self.plans:
            self.updates.remember(batch.space, watch.sets, watch.threshold_cosine)
            plan.apply()


def open_updates(
    connection: sqlite3.Connection, path: Path, spaces: Spaces, options: UpdateOptions | None
) -> Updates | None:
    """The updates of a partition that is being opened; without options, what is in the outbox is dropped."""
    if options is not None:
        return Updates(connection, path, spaces, options)
    Outbox(connection).switch_off()
    return None


class _Writer:
    """Numbers and encodes updates."""

    def __init__(self, outbox: Outbox) -> None:
        self.rows: list[OutboxRow] = []
        self._seq = outbox.last_seq
        self._epoch = outbox.epoch
        self._scale: Scale
        self._account_id = ""
        self._common: Mapping[str, Any] = {}

    def turn_to(self, key: SpaceKey, threshold: _Threshold) -> None:
        """Go on with updates of this space."""
        self._scale = threshold.scale
        self._account_id = key.account_id
        self._common = {
            "epoch": self._epoch,
            "account_id": key.account_id,
            "object_type": key.object_type,
            "descriptor_type": key.descriptor_type,
            "descriptor_version": key.version,
            "threshold": threshold.value,
            "threshold_cosine": threshold.cosine,
        }

    def change(self, plan: Plan) -> None:
        """Tell what was deleted and which clusters fell apart or changed their id."""
        deleted = plan.deleted
        while len(deleted) > MAX_IDS:
            self._write(ChangeUpdate(**self._next(), deleted=deleted[:MAX_IDS]))
            deleted = deleted[MAX_IDS:]
        for piece in _pieces(plan.parts, MAX_IDS - len(deleted)):
            self._write(ChangeUpdate(**self._next(), deleted=deleted, clusters=piece))
            deleted = []
        if deleted:
            self._write(ChangeUpdate(**self._next(), deleted=deleted))

    def arrivals(self, plan: Plan) -> None:
        """Tell of each new object."""
        cosines = [0.0 if arrival.strongest is None else arrival.strongest[1] for arrival in plan.arrivals]
        similarities = self._scale.to_scale(cosines).tolist()
        for arrival, similarity in zip(plan.arrivals, similarities, strict=True):
            link = None
            if arrival.strongest is not None:
                link = StrongestLink(object_id=arrival.strongest[0], similarity=similarity)
            update = ObjectUpdate(
                **self._next(),
                object_id=arrival.object_id,
                cluster=arrival.cluster,
                strongest=link,
                merged=arrival.merged[:MAX_IDS],
            )
            self._write(update)
            rest = [Part(arrival.cluster, [], former) for former in arrival.merged[MAX_IDS:]]
            for piece in _pieces(rest, MAX_IDS):
                self._write(ChangeUpdate(**self._next(), clusters=piece))

    def reset(self, parts: Iterable[Part]) -> Iterable[None]:
        """Tell all clusters of a space; yields after each update, which the caller takes from `rows`."""
        is_first = True
        for piece in _pieces(parts, MAX_IDS):
            make = ResetUpdate if is_first else ChangeUpdate
            self._write(make(**self._next(), clusters=piece))
            is_first = False
            yield
        if is_first:
            self._write(ResetUpdate(**self._next()))
            yield

    def _next(self) -> dict[str, Any]:
        self._seq += 1
        return {**self._common, "seq": self._seq}

    def _write(self, update: ClusterUpdate) -> None:
        self.rows.append(OutboxRow(self._seq, self._account_id, encode_update(update)))


def _pieces(parts: Iterable[Part], room: int) -> Iterable[list[ClusterPart]]:
    """The parts, cut so that a piece has at most MAX_IDS ids, and the first at most `room`."""
    piece: list[ClusterPart] = []
    for part in parts:
        objects, former = part.objects, part.former
        while objects or former is not None:
            # The id of the cluster counts, and that of the former one.
            if room < 3:
                yield piece
                piece, room = [], MAX_IDS
            taken, objects = objects[: room - 2], objects[room - 2 :]
            # What is left of the former cluster is only what no part has listed before.
            here, former = (None, former) if objects else (former, None)
            piece.append(ClusterPart(id=part.cluster, objects=taken, former=here))
            room -= len(taken) + 2
    if piece:
        yield piece
