"""What the removal of objects does to a spanning forest, and to which objects it has to be matched again.

Let F be the maximum spanning forest of a graph G, and D the removed rows. F less the links of D is part of
the forest of G less D: a link that is the best across some cut of G is still the best across the same cut of
what is left. So all that is missing are links between the parts into which the components of D fall; to find
them, the members of those components are compared with each other, whatever the size of the space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import Rows, connected_components
from stream_cluster.graph.forest import maximum_spanning_forest
from stream_cluster.model import Links, concatenate_links


@dataclass(frozen=True, slots=True)
class Torn:
    """What is left of the components that held removed rows and fell into more than one part."""

    rows: Rows
    """The members that are left, shape (n,), those of one component next to each other."""
    component: npt.NDArray[np.int64]
    """Number of the component that each was in, shape (n,), ascending."""
    part: npt.NDArray[np.int64]
    """Number of the part that each is in now, shape (n,). A part lies in one component."""
    is_asking: npt.NDArray[np.bool_]
    """Shape (n,): false for the largest part of each component. Every missing link has an end that asks."""
    forest: Links
    """The links that hold the parts together."""

    def __len__(self) -> int:
        return len(self.rows)


def marks(rows: npt.NDArray[np.integer], n_rows: int) -> npt.NDArray[np.bool_]:
    """Which of the rows 0..n_rows-1 are among `rows`, shape (n_rows,)."""
    marked = np.zeros(n_rows, np.bool_)
    marked[rows] = True
    return marked


def without(links: Links, is_removed: npt.NDArray[np.bool_]) -> Links:
    """The links neither of whose ends is removed; the same object when that holds for all.

    Args:
        is_removed: by row, shape (rows,).
    """
    lost = is_removed[links.a] | is_removed[links.b]
    if not bool(lost.any()):
        return links
    return Links(links.a[~lost], links.b[~lost], links.similarity[~lost])


def tear(links: Links, is_removed: npt.NDArray[np.bool_]) -> Torn:
    """Find the components that removed rows held together. One pass over the links, another over the rows.

    Args:
        links: links whose spanning forest is that of the space, all of them above its floor.
        is_removed: by row of the space, shape (rows,).
    """
    n_rows = len(is_removed)
    labels = connected_components(n_rows, [(links.a, links.b)])
    is_touched = marks(labels[is_removed], n_rows)[labels]
    # Of all the links only the forest may decide what holds together: another one can join two parts and
    # still be weaker than one that was dropped for a path through a removed row.
    inside = is_touched[links.a]
    forest = maximum_spanning_forest(Links(links.a[inside], links.b[inside], links.similarity[inside]))
    forest = without(forest, is_removed)
    rows = np.flatnonzero(is_touched & ~is_removed)
    rows = rows[np.argsort(labels[rows], kind="stable")]
    place = np.zeros(n_rows, np.uint32)
    place[rows] = np.arange(len(rows), dtype=np.uint32)
    part = connected_components(len(rows), [(place[forest.a], place[forest.b])]).astype(np.int64)
    return _torn(rows, labels[rows].astype(np.int64), part, forest)


def missing_links(torn: Torn, found: Links) -> Links:
    """Those of the links found between parts that the forest of what is left has beside `torn.forest`."""
    joined = maximum_spanning_forest(concatenate_links([torn.forest, found]))
    order = np.argsort(torn.rows)
    rows = torn.rows[order]
    part = torn.part[order]
    is_new = part[np.searchsorted(rows, joined.a)] != part[np.searchsorted(rows, joined.b)]
    return Links(joined.a[is_new], joined.b[is_new], joined.similarity[is_new])


def _torn(
    rows: npt.NDArray[np.integer],
    component: npt.NDArray[np.int64],
    part: npt.NDArray[np.int64],
    forest: Links,
) -> Torn:
    """Leave out components that are still whole, and mark the parts that have to ask."""
    sizes = np.bincount(part)
    component_of = np.zeros(len(sizes), np.int64)
    component_of[part] = component
    by_size = np.lexsort((sizes, component_of))
    is_last = np.append(component_of[by_size][1:] != component_of[by_size][:-1], True)[: len(sizes)]
    is_largest = np.zeros(len(sizes), np.bool_)
    is_largest[by_size[is_last]] = True
    parts_in = np.bincount(component_of, minlength=1)
    kept = parts_in[component] > 1
    asking = ~is_largest[part]
    is_whole = np.zeros(int(rows.max(initial=0)) + 1, np.bool_)
    is_whole[rows[~kept]] = True
    # Both ends of a link of the forest are in one component.
    forest = without(forest, is_whole)
    return Torn(rows[kept].astype(np.uint32), component[kept], part[kept], asking[kept], forest)
