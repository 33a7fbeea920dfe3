"""Spaces in memory, and what one micro-batch does to one of them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.matching import SpaceMatcher, encode
from stream_cluster.messages import Descriptor
from stream_cluster.model import Codes, Links, SpaceKey, no_links
from stream_cluster.state.objects import object_row


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
    merged_links: int = 0
    """Links of the compacted forest."""
    pending_links: int = 0
    """Links of reduced batches that wait to be merged."""
    matcher: SpaceMatcher | None = None
    """None until the space is first needed."""


@dataclass(slots=True)
class SpaceBatch:
    """One micro-batch's part in one space."""

    space: Space
    is_new: bool
    candidates: list[tuple[str, Descriptor]] = field(default_factory=list)
    """(object id, descriptor) in the order of the log, before duplicates are dropped."""
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """New objects as rows of the `objects` table."""
    descriptors: list[Descriptor] = field(default_factory=list)
    """Descriptors of `rows`."""
    duplicates: int = 0
    codes: Codes = field(default_factory=lambda: np.empty((0, 0), np.int8))
    """Codes of `rows`, shape (len(rows), dim)."""
    links: Links = field(default_factory=no_links)
    """Spanning forest of the links found for `rows`."""
    links_seen: int = 0
    """Links above the floor before the reduction."""
    _known: set[str] = field(default_factory=set)

    def drop_known(self, stored: set[str]) -> None:
        """Tell which of the candidates' ids the database holds already."""
        self._known = stored

    def take(self, object_id: str, metadata: tuple[Any, ...], descriptor: Descriptor) -> bool:
        """Give the object the next row; False when the space holds it already."""
        if object_id in self._known:
            self.duplicates += 1
            return False
        self._known.add(object_id)
        row = self.space.next_row + len(self.rows)
        self.rows.append(object_row(self.space.space_id, row, object_id, metadata, descriptor))
        self.descriptors.append(descriptor)
        return True


def load_spaces(connection: sqlite3.Connection) -> dict[SpaceKey, Space]:
    """All spaces of a database, without their codes."""
    spaces = {}
    for space_id, account_id, object_type, descriptor_type, version, *numbers in connection.execute(
        "SELECT space_id, account_id, object_type, descriptor_type, version, dim, floor, next_row FROM spaces"
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
    return {space.key: space for space in spaces.values()}


def encode_batch(batch: SpaceBatch) -> None:
    """Fill in `codes`."""
    batch.codes = encode([descriptor.vector for descriptor in batch.descriptors])


def match_batch(batch: SpaceBatch, matcher: SpaceMatcher) -> None:
    """Fill in `links` and `links_seen`: new rows against resident rows and against each other."""
    floor_cosine = batch.space.floor_cosine
    first_row = np.uint32(batch.space.next_row)
    forest = ForestBuilder()
    for hits in matcher.search(batch.codes, floor_cosine):
        # A resident row is older, so its number is the smaller one.
        forest.add(Links(hits.row, hits.query + first_row, hits.similarity))
    for links in matcher.within(batch.codes, floor_cosine):
        forest.add(Links(links.a + first_row, links.b + first_row, links.similarity))
    batch.links = forest.result()
    batch.links_seen = forest.links_seen
