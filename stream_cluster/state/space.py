"""Spaces in memory, and what one micro-batch does to one of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.graph.removal import marks
from stream_cluster.matching import RecallSample, SpaceMatcher, encode
from stream_cluster.messages import Descriptor
from stream_cluster.model import Codes, Links, ObjectType, SpaceKey, no_links
from stream_cluster.state.objects import object_row
from stream_cluster.state.schema import ROW_MASK, object_key
from stream_cluster.state.twins import KnownTwins, Lesson, Twins, are_dense, find_groups
from stream_cluster.state.watch import Watch

FloorOf = Callable[[SpaceKey], float]
"""The cosine at or below which links of a space are not kept."""


@dataclass(slots=True)
class Space:
    """A space of this partition. Invariant: a loaded matcher holds exactly `next_row` rows."""

    space_id: int
    key: SpaceKey
    dim: int
    floor_cosine: float
    """Links above it are kept for all objects of the space; a later, lower setting does not lower it."""
    next_row: int = 0
    """One past the last row given out."""
    deleted: int = 0
    """Rows whose objects were deleted. Invariant: `next_row - deleted` objects are held."""
    merged_links: int = 0
    """Links of the compacted forest."""
    pending_links: int = 0
    """Links of reduced batches that wait to be merged."""
    matcher: SpaceMatcher | None = None
    """None until the space is needed, and again once it was let go, see `resident`."""
    known: KnownTwins = field(default_factory=KnownTwins)
    """Codes that many rows have. Changed only when a batch is committed."""


class Spaces:
    """The spaces of a partition. Spaces are never taken out: not even of an account that was erased."""

    def __init__(self) -> None:
        self._by_key: dict[SpaceKey, Space] = {}
        self._by_account: dict[str, list[Space]] = {}

    def add(self, space: Space) -> None:
        """Take a space; adding it again does nothing."""
        if space.key not in self._by_key:
            self._by_key[space.key] = space
            self._by_account.setdefault(space.key.account_id, []).append(space)

    def get(self, key: SpaceKey) -> Space | None:
        """The space of a key."""
        return self._by_key.get(key)

    def of(self, account_id: str, object_types: Sequence[ObjectType]) -> list[Space]:
        """The spaces of an account that hold objects of these types."""
        spaces = self._by_account.get(account_id, [])
        return [space for space in spaces if space.key.object_type in object_types]

    def has_account(self, account_id: str | None) -> bool:
        """Whether any space is of this account."""
        return account_id in self._by_account

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Space]:
        return iter(self._by_key.values())


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """What the removal of objects changes beside the objects and codes themselves."""

    rows: npt.NDArray[np.uint32]
    """The removed rows, ascending: of objects that were there, and of objects that came in this batch."""
    chunks: list[tuple[int, Links]]
    """(sequence number, links that stay) of the link chunks that held links of these rows."""
    repaired: Links
    """Links that the forest lacked, because it had a better path through a removed object."""
    remaining: Links
    """Links above the threshold of cluster updates whose components are those of what is left. Empty where
    there are no updates."""


@dataclass(slots=True)
class SpaceBatch:
    """One micro-batch's part in one space."""

    space: Space
    is_new: bool
    candidates: list[tuple[str, Descriptor]] = field(default_factory=list)
    """(object id, descriptor) in the order of the log, before duplicates are dropped."""
    changed: list[str] = field(default_factory=list)
    """Ids that updates and deletes name, whether the space holds them or not."""
    is_cleared: bool = False
    """Whether some record deletes all objects of the space."""
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """New objects as rows of the `objects` table, those included that the batch itself deletes again."""
    descriptors: list[Descriptor] = field(default_factory=list)
    """Descriptors of `rows`."""
    duplicates: int = 0
    removed: dict[int, str] = field(default_factory=dict)
    """Row → object id of the objects that the batch deletes."""
    updates: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """(row, new value of each column) in the order of the log."""
    codes: Codes = field(default_factory=lambda: np.empty((0, 0), np.int8))
    """Codes of `rows`, shape (len(rows), dim); zeros where the batch itself deletes the object."""
    links: Links = field(default_factory=no_links)
    """Spanning forest of the links found for `rows`, less those of removed objects."""
    links_seen: int = 0
    """Links above the floor before the reduction."""
    removal: Removal | None = None
    """What `removed` entails; None when nothing was removed."""
    recall: RecallSample = field(default_factory=lambda: RecallSample(0, 0))
    """What the exact sample of this batch says of an approximate matcher."""
    matching: dict[str, Any] | None = None
    """Engine and recall as the state keeps them; None when matching was exact."""
    lesson: Lesson = field(default_factory=Lesson)
    """What `known` of the space learns when the batch is committed."""
    watch: Watch | None = None
    """What cluster updates need to know of the links; None when none are told of this space."""
    _rows_of: dict[str, int] = field(default_factory=dict)

    def know(self, stored: dict[str, int]) -> None:
        """Tell the rows of those ids in question that the database holds."""
        self._rows_of = stored

    def take(self, object_id: str, metadata: tuple[Any, ...], descriptor: Descriptor) -> bool:
        """Give the object the next row; False when the space holds it already."""
        if object_id in self._rows_of:
            self.duplicates += 1
            return False
        row = self.space.next_row + len(self.rows)
        self._rows_of[object_id] = row
        self.rows.append(object_row(self.space.space_id, row, object_id, metadata, descriptor))
        self.descriptors.append(descriptor)
        return True

    def update(self, object_id: str, values: dict[str, Any]) -> bool:
        """Change columns of an object; False when the space does not hold it."""
        row = self._rows_of.get(object_id)
        if row is not None and values:
            self.updates.append((row, values))
        return row is not None

    def remove(self, object_id: str) -> bool:
        """Delete an object; False when the space does not hold it. A later `take` gives the id a new row."""
        row = self._rows_of.pop(object_id, None)
        if row is not None:
            self.removed[row] = object_id
        return row is not None

    def remove_all(self) -> bool:
        """Delete every object that the space holds at this point of the log; False when there is none."""
        held = len(self._rows_of)
        self.removed |= {row: object_id for object_id, row in self._rows_of.items()}
        self._rows_of.clear()
        return held > 0

    @property
    def new_objects(self) -> list[tuple[Any, ...]]:
        """Those of `rows` that the batch does not delete again."""
        if not self.removed:
            return self.rows
        return [row for row in self.rows if row[0] & ROW_MASK not in self.removed]

    @property
    def removed_keys(self) -> list[int]:
        """Keys of the removed objects that were there before the batch."""
        space = self.space
        return [object_key(space.space_id, row) for row in self.removed if row < space.next_row]


def load_spaces(connection: sqlite3.Connection) -> Spaces:
    """All spaces of a database, without their codes."""
    spaces = {}
    for space_id, account_id, object_type, descriptor_type, version, *numbers in connection.execute(
        "SELECT space_id, account_id, object_type, descriptor_type, version, dim, floor, next_row, deleted "
        "FROM spaces"
    ):
        key = SpaceKey(account_id, object_type, descriptor_type, version)
        spaces[space_id] = Space(space_id, key, *numbers)
    for space_id, merged, links in connection.execute(
        "SELECT space_id, merged, sum(links) FROM links GROUP BY space_id, merged"
    ):
        if merged:
            spaces[space_id].merged_links = links
        else:
            spaces[space_id].pending_links = links
    loaded = Spaces()
    for space in spaces.values():
        loaded.add(space)
    return loaded


def encode_batch(batch: SpaceBatch) -> None:
    """Fill in `codes`."""
    batch.codes = encode([descriptor.vector for descriptor in batch.descriptors])


def match_batch(batch: SpaceBatch, matcher: SpaceMatcher) -> None:
    """Fill in `links`, `watch` and what is counted: new rows against resident rows and against each other."""
    _find_links(batch, matcher)
    batch.recall = matcher.take_recall()
    batch.matching = matcher.describe()


def _find_links(batch: SpaceBatch, matcher: SpaceMatcher) -> None:
    first_row = batch.space.next_row
    forest = ForestBuilder()
    is_removed = marks(np.fromiter(batch.removed, np.int64, len(batch.removed)), first_row + len(batch.rows))
    groups = find_groups(batch.codes, is_removed[first_row:])
    known = batch.space.known
    if len(groups.first) < len(batch.rows) or known.by_code or known.is_dense:
        rows = np.arange(first_row, first_row + len(batch.rows), dtype=np.uint32)
        # What is known says nothing of rows that go.
        codes = {} if batch.removed else known.by_code
        twins = Twins(groups, rows, batch.space.floor_cosine, is_removed, codes)
        _match_firsts(batch, matcher, forest, twins)
        if not twins.is_spoilt:
            _take(batch, forest, twins.others())
            batch.links = forest.result()
            batch.links_seen = twins.links_seen
            batch.lesson = twins.learned() if not batch.removed else Lesson(is_void=True)
            return
    links_before = forest.links_seen
    for hits in matcher.search(batch.codes, batch.space.floor_cosine):
        # A resident row is older, so its number is the smaller one.
        _take(batch, forest, Links(hits.row, hits.query + np.uint32(first_row), hits.similarity))
    for links in matcher.within(batch.codes, batch.space.floor_cosine):
        _take(batch, forest, _shifted(links, first_row))
    batch.links = forest.result()
    batch.links_seen = forest.links_seen - links_before
    batch.lesson = Lesson(is_dense=are_dense(batch.links_seen, len(batch.rows)), is_void=True)


def _match_firsts(batch: SpaceBatch, matcher: SpaceMatcher, forest: ForestBuilder, twins: Twins) -> None:
    """Match the first row of each group of equal codes."""
    floor_cosine = batch.space.floor_cosine
    firsts = twins.groups.first
    rows = twins.rows[firsts]
    codes = batch.codes[firsts]
    asked = twins.prepare(codes)
    if len(asked):
        for hits in matcher.search(codes[asked], floor_cosine):
            query = asked[hits.query]
            twins.see_resident(hits.row, query, hits.similarity)
            _take(batch, forest, Links(hits.row, rows[query], hits.similarity))
    for links in matcher.within(codes, floor_cosine):
        twins.see_new(links.a, links.b, links.similarity)
        _take(batch, forest, Links(rows[links.a], rows[links.b], links.similarity))


def _take(batch: SpaceBatch, forest: ForestBuilder, links: Links) -> None:
    forest.add(links)
    if batch.watch is not None:
        batch.watch.see(links)


def _shifted(links: Links, first_row: int) -> Links:
    return Links(links.a + np.uint32(first_row), links.b + np.uint32(first_row), links.similarity)
