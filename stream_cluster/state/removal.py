"""Removing rows from a space: what becomes of its links, found without changing anything.

The forest afterwards is that of a run that never saw the removed objects, see `stream_cluster.graph.removal`.
The links of the space are read once for all rows that a batch removes. Codes are compared only within the
components that fell apart, exactly, whatever the engine of the space: time grows with these components, and
memory by the codes of the largest of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import Rows
from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.graph.removal import Torn, marks, missing_links, tear, without
from stream_cluster.matching import CodeStore, SpaceMatcher, all_pairs, scan
from stream_cluster.model import Codes, Links, concatenate_links, no_links
from stream_cluster.state.chunks import link_chunks
from stream_cluster.state.space import Removal, SpaceBatch
from stream_cluster.state.twins import Twins, find_groups

# Small components are compared together up to so many rows: pairs of different ones are compared for
# nothing, but that takes less time than to begin another search.
_BUNDLE_ROWS = 1024

# So many rows are compared with a large component in less time than it takes to look for equal codes in it.
_FEW_ASKING = 16

Places = npt.NDArray[np.int64]

CodesOf = Callable[[Rows], Codes]
"""Codes of rows of the space, of this batch or from before it."""


def plan_removal(
    connection: sqlite3.Connection,
    batch: SpaceBatch,
    loaded: Callable[[], SpaceMatcher],
    *,
    keeps_links: bool,
) -> None:
    """Fill in `removal` for the rows in `removed`, and take them out of `codes` and `links`.

    Args:
        loaded: gives the matcher of the space; called only when there is something to compare.
        keeps_links: false where the partition collects objects without looking for links.
    """
    space = batch.space
    is_removed = marks(
        np.fromiter(batch.removed, np.int64, len(batch.removed)), space.next_row + len(batch.rows)
    )
    changed: list[tuple[int, Links]] = []
    parts = [batch.links]
    for seq, links in link_chunks(connection, space.space_id):
        parts.append(links)
        left = without(links, is_removed)
        if left is not links:
            changed.append((seq, left))
    repaired = remaining = no_links()
    if keeps_links:
        # Weaker links may be left from a time of a lower floor. They answer nothing, and must not hold
        # together what the forest above the floor does not.
        torn = tear(concatenate_links(parts).above(space.floor_cosine), is_removed)
        if len(torn):
            repaired = _repair(
                torn, lambda rows: _codes(rows, batch, loaded()), space.dim, space.floor_cosine
            )
    if batch.watch is not None:
        above = concatenate_links([*parts, repaired]).above(batch.watch.threshold_cosine)
        remaining = without(above, is_removed)
    rows = np.flatnonzero(is_removed).astype(np.uint32)
    if len(batch.rows):
        batch.codes = batch.codes.copy()
        batch.codes[rows[rows >= space.next_row] - space.next_row] = 0
        batch.links = without(batch.links, is_removed)
    batch.removal = Removal(rows, changed, repaired, remaining)


def _repair(torn: Torn, codes_of: CodesOf, dim: int, floor_cosine: float) -> Links:
    """The links that the forest lacks: the best ones between parts of one component."""
    found = ForestBuilder()
    for bundle in _bundles(torn.component):
        rows, is_asking = torn.rows[bundle], torn.is_asking[bundle]
        asking, largest = np.flatnonzero(is_asking), np.flatnonzero(~is_asking)
        if (links := _among_twins(rows, codes_of, len(asking), floor_cosine)) is not None:
            order = np.argsort(rows)
            one, other = (order[np.searchsorted(rows[order], end)] for end in (links.a, links.b))
            found.add(_joining(torn, bundle, one, other, links.similarity))
            continue
        codes = codes_of(rows[asking])
        store = CodeStore(dim)
        store.append(codes_of(rows[largest]))
        for hits in scan(store, codes, floor_cosine):
            found.add(_joining(torn, bundle, asking[hits.query], largest[hits.row], hits.similarity))
        # Of two parts only one asks, and there is nothing to find among its members.
        if len(np.unique(torn.part[bundle][asking])) > len(np.unique(torn.component[bundle])):
            for links in all_pairs(codes, floor_cosine):
                found.add(_joining(torn, bundle, asking[links.a], asking[links.b], links.similarity))
    return missing_links(torn, found.result())


def _among_twins(rows: Rows, codes_of: CodesOf, asking: int, floor_cosine: float) -> Links | None:
    """The links that the forest of some rows can need; None where few codes repeat, so that it would not pay.

    The forest of equal codes is a star, and without its middle a million parts would ask each other.
    """
    if asking < _FEW_ASKING:
        return None
    ascending = np.sort(rows)
    codes = codes_of(ascending)
    nothing = np.zeros(len(rows), np.bool_)
    groups = find_groups(codes, nothing)
    if len(groups.first) ** 2 > asking * len(rows) / 2:
        return None
    twins = Twins(groups, ascending, floor_cosine, np.zeros(int(ascending[-1]) + 1, np.bool_))
    firsts = codes[groups.first]
    twins.prepare(firsts)
    forest = ForestBuilder()
    for links in all_pairs(firsts, floor_cosine):
        twins.see_new(links.a, links.b, links.similarity)
        if twins.is_spoilt:
            return None
        first_rows = ascending[groups.first]
        forest.add(Links(first_rows[links.a], first_rows[links.b], links.similarity))
    if twins.is_spoilt:
        return None
    forest.add(twins.others())
    return forest.result()


def _joining(
    torn: Torn, bundle: slice, one: Places, other: Places, similarity: npt.NDArray[np.float32]
) -> Links:
    """Those of the pairs, given by their places in the bundle, that join two parts of one component."""
    component, part, rows = torn.component[bundle], torn.part[bundle], torn.rows[bundle]
    joins = (component[one] == component[other]) & (part[one] != part[other])
    a, b = rows[one[joins]], rows[other[joins]]
    return Links(np.minimum(a, b), np.maximum(a, b), similarity[joins])


def _bundles(component: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Runs of whole components of at most `_BUNDLE_ROWS` rows, or of one component that is larger."""
    ends = np.append(np.flatnonzero(component[1:] != component[:-1]) + 1, len(component))
    begin = end = 0
    for stop in ends.tolist():
        if stop - begin > _BUNDLE_ROWS and end > begin:
            yield slice(begin, end)
            begin = end
        end = stop
    yield slice(begin, end)


def _codes(rows: Rows, batch: SpaceBatch, matcher: SpaceMatcher) -> Codes:
    first_new = batch.space.next_row
    is_new = rows >= first_new
    if not bool(is_new.any()):
        return matcher.store.gather(rows)
    codes = np.empty((len(rows), batch.space.dim), np.int8)
    codes[is_new] = batch.codes[rows[is_new] - first_new]
    codes[~is_new] = matcher.store.gather(rows[~is_new])
    return codes
