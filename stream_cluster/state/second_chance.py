"""Second chances: links that cells missed are looked for when there is time."""

from __future__ import annotations

from collections.abc import Iterable

from stream_cluster.state.batch import Batch
from stream_cluster.state.space import Space, SpaceBatch


def search_again(batch: Batch, spaces: Iterable[Space], max_objects: int) -> None:
    """Put links that were missed into the batch, of up to `max_objects` objects: the most doubtful ones."""
    for space in spaces:
        left = max_objects - batch.searched_again
        if left <= 0:
            return
        if space.matcher is None or not space.matcher.doubts:
            continue
        rows, links = space.matcher.second_chance(left, space.floor_cosine)
        batch.searched_again += rows
        if len(links):
            batch.spaces[space.key] = SpaceBatch(space, is_new=False, links=links, links_seen=len(links))
