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

    def run(self, messages: Sequence[ObjectMessage | Rejection]) -> Batch:
        accepted: list[tuple[ObjectMessage, str]] = []
        for position, message in enumerate(messages):
            verdict = message if isinstance(message, Rejection) else self._assign(message)  # 2
            if isinstance(verdict, Rejection):
                self._batch.rejected.append((position, verdict))
                label = self._label(verdict.account_id)
                self._batch.counters[label, "rejected", verdict.reason.value] += 1
            else:
                accepted.append((verdict, self._label(verdict.account_id)))
        self._look_up()  # 3
        self._walk(accepted)
        return self._batch

    def _label(self, account_id: str | None) -> str:
        """The account under which a record is counted: one of ours, or none.

        Accounts that are new in this batch are ours from their first record on, so that the counts do not
        depend on where batches begin. Made-up ids must not grow the table.
        """
        known = self._spaces.has_account(account_id) or account_id in self._new_accounts
        return account_id if account_id is not None and known else ""

    # -- which spaces, which ids -----------------------------------------------------------------------

    def _assign(self, message: ObjectMessage) -> ObjectMessage | Rejection:
        """Find the spaces that a message is about and note the ids; reject what does not fit."""
        if message.action != "upsert":
            for space in self._spaces.of(message.account_id, message.everything or (message.object_type,)):
                space_batch = self._batch.spaces.setdefault(space.key, SpaceBatch(space, is_new=False))
                space_batch.changed += message.object_ids
                space_batch.is_cleared |= bool(message.everything)
            return message
        keys = _keys(message)
        for key, descriptor in zip(keys, message.descriptors, strict=True):
            provisional = self._batch.spaces.get(key)
            known = self._spaces.get(key) if provisional is None else provisional.space
            dim = len(descriptor.vector)
            if known is not None and known.dim != dim:
                return Rejection(
                    Reason.WRONG_DIMENSION,
                    f"{dim} values, but {key.descriptor_type} version {key.version} of this account "
                    f"has {known.dim}",
                    message.account_id,
                )
        for key, descriptor in zip(keys, message.descriptors, strict=True):
            self._space_batch(key, len(descriptor.vector)).candidates.append((message.object_id, descriptor))
        self._new_accounts.add(message.account_id)
        return message

    def _space_batch(self, key: SpaceKey, dim: int) -> SpaceBatch:
        space_batch = self._batch.spaces.get(key)
        if space_batch is None:
            space = self._spaces.get(key)
            is_new = space is None
            if space is None:
                space = Space(self._next_space_id(), key, dim, self._floor_of(key))
            space_batch = self._batch.spaces[key] = SpaceBatch(space, is_new)
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

    def _walk(self, accepted: Sequence[tuple[ObjectMessage, str]]) -> None:
        """Let each message have its effect on the rows, and count it by its result."""
        previous, metadata = None, ()
        for message, label in accepted:
            if message.action == "upsert":
                # Objects without metadata may share an empty one.
                if message.metadata is not previous:
                    previous, metadata = message.metadata, metadata_row(message.metadata)
                result = "accepted" if self._insert(message, metadata) else "duplicate"
            elif message.action == "update":
                result = "updated" if self._update(message) else "unknown_object"
            else:
                result = "deleted" if self._delete(message) else "unknown_object"
            self._batch.counters[label, result, ""] += 1

    def _insert(self, message: ObjectMessage, metadata: tuple[Any, ...]) -> bool:
        is_new = False
        for key, descriptor in zip(_keys(message), message.descriptors, strict=True):
            is_new |= self._batch.spaces[key].take(message.object_id, metadata, descriptor)
        return is_new

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


def _keys(message: ObjectMessage) -> list[SpaceKey]:
    """The space of each descriptor."""
    return [
        SpaceKey(message.account_id, message.object_type, descriptor.type, descriptor.version)
        for descriptor in message.descriptors
    ]
