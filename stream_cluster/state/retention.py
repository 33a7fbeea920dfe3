"""Objects past their age, found in slices, so that ingest never waits long for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from stream_cluster.model import DescriptorType
from stream_cluster.state.batch import Batch
from stream_cluster.state.schema import ROW_MASK
from stream_cluster.state.space import Space, SpaceBatch, Spaces

# A hundred thousand small accounts must not make one slice long.
_SPACES_PER_SLICE = 1000


class Sweeper:
    """Goes round the spaces whose descriptor type has a greatest age."""

    def __init__(
        self, connection: sqlite3.Connection, spaces: Spaces, retention_us: Mapping[DescriptorType, int]
    ) -> None:
        """`retention_us`: microseconds by descriptor type; types that are not in it are kept."""
        self._db = connection
        self._spaces = spaces
        self._retention_us = retention_us
        self._left: list[Space] = []
        """Spaces that the present round has not finished, the next one last."""

    @property
    def is_under_way(self) -> bool:
        """Whether the present round has more to do."""
        return bool(self._left)

    def slice(self, batch: Batch, now_us: int, max_objects: int, *, begin: bool) -> None:
        """Put the next objects with a create_time before `now_us` less their age into the batch.

        Objects without a create_time have no age, and are kept.
        """
        if begin:
            self._left = [space for space in self._spaces if space.key.descriptor_type in self._retention_us]
        for _ in range(_SPACES_PER_SLICE):
            if not self._left or max_objects <= 0:
                return
            space = self._left[-1]
            oldest_us = now_us - self._retention_us[space.key.descriptor_type]
            found = self._db.execute(
                "SELECT object_id, key FROM objects WHERE space_id = ? AND create_time_us < ? "
                "ORDER BY create_time_us, object_id LIMIT ?",
                (space.space_id, oldest_us, max_objects),
            ).fetchall()
            if found:
                part = batch.spaces[space.key] = SpaceBatch(space, is_new=False)
                part.know({object_id: key & ROW_MASK for object_id, key in found})
                part.remove_all()
            if len(found) < max_objects:
                self._left.pop()
            max_objects -= len(found)
