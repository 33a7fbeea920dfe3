"""A batch's messages in the order of the log: what each of them does to the spaces of its account.

Only ids and rows are settled here, so that an object may come, change, go and come again within one batch.
The vectors are matched afterwards, all at once: an object that goes takes its links with it whenever they are
found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from stream_cluster.messages import ObjectMessage, Reason, Rejection
from stream_cluster.model import SpaceKey
from stream_cluster.state.batch import Batch
from stream_cluster.state.objects import all_rows, changed_columns, known_rows, metadata_row
from stream_cluster.state.space import FloorOf, Space, SpaceBatch, Spaces


def order_messages(
    connection: sqlite3.Connection,
    spaces: Spaces,
    messages: Sequence[ObjectMessage | Rejection],
    next_offset: int,
    floor_of: FloorOf,
) -> Batch:
    """Steps 2 and 3 of a micro-batch: spaces and rows for all messages, in the order of the log.

    `floor_of` gives the floor of a new space.
    """
    return _Ordering(connection, spaces, Batch(next_offset, len(messages)), floor_of).run(messages)


_Name = tuple[str, str, str, int]
"""The fields of a `SpaceKey`, which takes longer to make."""


class _Ordering:
    def __init__(
        self, connection: sqlite3.Connection, spaces: Spaces, batch: Batch, floor_of: FloorOf
    ) -> None:
        self._db = connection
        self._spaces = spaces
        self._batch = batch
        self._floor_of = floor_of
        self._new_accounts: set[str] = set()
        self._parts_of: dict[str, list[SpaceBatch]] = {}
        self._part_of: dict[_Name, SpaceBatch] = {}
        """The parts that upserts of the batch are about."""

    def run(self, messages: Sequence[ObjectMessage | Rejection]) -> Batch:
        accepted: list[tuple[ObjectMessage, str, Sequence[SpaceBatch]]] = []
        for position, message in enumerate(messages):
            verdict = message if isinstance(message, Rejection) else self._assign(message)  # 2
            label = self._label(message.account_id)
            if isinstance(verdict, Rejection):
                self._batch.rejected.append((position, verdict))
                self._batch.counters[label, "rejected", verdict.reason.value] += 1
            elif isinstance(message, ObjectMessage):
                accepted.append((message, label, verdict))
        self._look_up()  # 3
        self._walk(accepted)
        return self._batch

    def _label(self, account_id: str | None) -> str:
        """The account under which a record is counted: one of ours, or none.

        Accounts that are new in this batch are ours from their first record on, so that the counts do not
        depend on where batches begin. Made-up ids must not grow the table.
        """
        known = account_id in self._new_accounts or self._spaces.has_account(account_id)
        return account_id if account_id is not None and known else ""

    # -- which spaces, which ids -----------------------------------------------------------------------

    def _assign(self, message: ObjectMessage) -> Sequence[SpaceBatch] | Rejection:
        """Find the spaces that a message is about and note the ids; reject what does not fit.

        Returns the part of each descriptor of an upsert, and nothing for other messages.
        """
        if message.action != "upsert":
            for space in self._spaces.of(message.account_id, message.everything or (message.object_type,)):
                space_batch = self._batch.spaces.setdefault(space.key, SpaceBatch(space, is_new=False))
                space_batch.changed += message.object_ids
                space_batch.is_cleared |= bool(message.everything)
            return ()
        names: list[_Name] = []
        for descriptor in message.descriptors:
            name: _Name = (message.account_id, message.object_type, descriptor.type, descriptor.version)
            part = self._part_of.get(name)
            known = self._spaces.get(_key(name)) if part is None else part.space
            dim = len(descriptor.vector)
            if known is not None and known.dim != dim:
                return Rejection(
                    Reason.WRONG_DIMENSION,
                    f"{dim} values, but {descriptor.type} version {descriptor.version} of this account "
                    f"has {known.dim}",
                    message.account_id,
                )
            names.append(name)
        object_id = message.object_id
        parts = []
        for name, descriptor in zip(names, message.descriptors, strict=True):
            part = self._part_of.get(name) or self._new_part(name, len(descriptor.vector))
            part.candidates.append((object_id, descriptor))
            parts.append(part)
        self._new_accounts.add(message.account_id)
        return parts

    def _new_part(self, name: _Name, dim: int) -> SpaceBatch:
        key = _key(name)
        space_batch = self._batch.spaces.get(key)
        if space_batch is None:
            space = self._spaces.get(key)
            is_new = space is None
            if space is None:
                space = Space(self._next_space_id(), key, dim, self._floor_of(key))
            space_batch = self._batch.spaces[key] = SpaceBatch(space, is_new)
        self._part_of[name] = space_batch
        return space_batch

    def _next_space_id(self) -> int:
        # Space ids are never reused: spaces are never removed.
        return len(self._spaces) + sum(part.is_new for part in self._batch.spaces.values()) + 1

    def _look_up(self) -> None:
        for key, space_batch in self._batch.spaces.items():
            self._parts_of.setdefault(key.account_id, []).append(space_batch)
            space_id = space_batch.space.space_id
            if space_batch.is_cleared:
                space_batch.know(all_rows(self._db, space_id))
            elif not space_batch.is_new:
                ids = [object_id for object_id, _ in space_batch.candidates]
                space_batch.know(known_rows(self._db, space_id, ids + space_batch.changed))

    # -- one after another -----------------------------------------------------------------------------

    def _walk(self, accepted: Sequence[tuple[ObjectMessage, str, Sequence[SpaceBatch]]]) -> None:
        """Let each message have its effect on the rows, and count it by its result."""
        previous, metadata = None, ()
        for message, label, parts in accepted:
            if message.action == "upsert":
                # Objects without metadata may share an empty one.
                if message.metadata is not previous:
                    previous, metadata = message.metadata, metadata_row(message.metadata)
                result = "accepted" if _insert(message, parts, metadata) else "duplicate"
            elif message.action == "update":
                result = "updated" if self._update(message) else "unknown_object"
            else:
                result = "deleted" if self._delete(message) else "unknown_object"
            self._batch.counters[label, result, ""] += 1

    def _update(self, message: ObjectMessage) -> bool:
        values = changed_columns(message.metadata, message.updated_fields)
        # Sums, not any(), which would stop at the first space.
        return sum(part.update(message.object_id, values) for part in self._parts(message)) > 0

    def _delete(self, message: ObjectMessage) -> bool:
        parts = self._parts(message)
        if message.everything:
            return sum(part.remove_all() for part in parts) > 0
        return sum(part.remove(object_id) for part in parts for object_id in message.object_ids) > 0

    def _parts(self, message: ObjectMessage) -> list[SpaceBatch]:
        """The batch's part in each space that can hold the objects of a change."""
        object_types = message.everything or (message.object_type,)
        parts = self._parts_of.get(message.account_id, [])
        return [part for part in parts if part.space.key.object_type in object_types]


def _insert(message: ObjectMessage, parts: Sequence[SpaceBatch], metadata: tuple[Any, ...]) -> bool:
    """Whether the object is new in any of the spaces."""
    object_id = message.object_id
    is_new = False
    for part, descriptor in zip(parts, message.descriptors, strict=True):
        is_new |= part.take(object_id, metadata, descriptor)
    return is_new


def _key(name: _Name) -> SpaceKey:
    return SpaceKey._make(name)
