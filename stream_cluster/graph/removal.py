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

# Steps from link to link before all components are found at once: a person's photographs are seldom further
# apart, and a step takes a tenth of the time.
_STEPS = 12


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
    """Find the components that removed rows held together, and the parts they fell into.

    A few passes over the links; beyond that, time grows with these components only.

    Args:
        links: links whose spanning forest is that of the space, all of them above its floor.
        is_removed: by row of the space, shape (rows,).
    """
    # Of all the links only the forest may decide what holds together: another one can join two parts and
    # still be weaker than one that was dropped for a path through a removed row.
    whole = maximum_spanning_forest(_touched(links, is_removed))
    forest = without(whole, is_removed)
    rows = np.flatnonzero(marks(np.concatenate((whole.a, whole.b)), len(is_removed)))
    place = np.zeros(len(is_removed), np.uint32)
    place[rows] = np.arange(len(rows), dtype=np.uint32)
    component = connected_components(len(rows), [(place[whole.a], place[whole.b])])
    part = connected_components(len(rows), [(place[forest.a], place[forest.b])])
    left = np.flatnonzero(~is_removed[rows])
    left = left[np.argsort(component[left], kind="stable")]
    return _torn(rows[left], component[left].astype(np.int64), part[left].astype(np.int64), forest)


def missing_links(torn: Torn, found: Links) -> Links:
    """Those of the links found between parts that the forest of what is left has beside `torn.forest`."""
    joined = maximum_spanning_forest(concatenate_links([torn.forest, found]))
    order = np.argsort(torn.rows)
    rows = torn.rows[order]
    part = torn.part[order]
    is_new = part[np.searchsorted(rows, joined.a)] != part[np.searchsorted(rows, joined.b)]
    return Links(joined.a[is_new], joined.b[is_new], joined.similarity[is_new])


def _touched(links: Links, is_removed: npt.NDArray[np.bool_]) -> Links:
    """The links of the components that hold removed rows."""
    is_member = is_removed.copy()
    found = -1
    for _ in range(_STEPS):
        inside = is_member[links.a] | is_member[links.b]
        is_member[links.a[inside]] = True
        is_member[links.b[inside]] = True
        before, found = found, int(np.count_nonzero(inside))
        if found == before:
            break
    else:
        labels = connected_components(len(is_removed), [(links.a, links.b)])
        inside = marks(labels[is_removed], len(is_removed))[labels][links.a]
    return Links(links.a[inside], links.b[inside], links.similarity[inside])


def _torn(
    rows: npt.NDArray[np.integer],
    component: npt.NDArray[np.int64],
    part: npt.NDArray[np.int64],
    forest: Links,
) -> Torn:
    """Leave out components that are still whole, and mark the parts that have to ask."""
    _, part = np.unique(part, return_inverse=True)  # removed rows were parts of their own
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
