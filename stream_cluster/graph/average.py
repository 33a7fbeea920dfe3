"""Average linkage (UPGMA), cut at a threshold: groups merge while their average similarity is above it.

Only pairs of groups whose average similarity is above the threshold are ever kept. That loses nothing: the
average of A ∪ B with C lies between those of A with C and of B with C, so it is above the threshold only if
one of these is. For the same reason two groups merge only along links above the threshold between objects,
and average linkage is reducible: a merge brings nothing closer. So all pairs of groups that are each other's
nearest may merge at once, in any order, and the hierarchy is the one that merges the closest pair first
(Murtagh, A survey of recent advances in hierarchical clustering algorithms, 1983; Müllner, Modern
hierarchical, agglomerative clustering algorithms, 2011). Of equally close ones the oldest is the nearest.

Groups that hold objects that are to be kept apart (`stream_cluster.graph.apart`) have no link.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import connected_components
from stream_cluster.graph.groups import Groups
from stream_cluster.model import Interrupt, Links, Progress, concatenate_links, no_links

DENSE_GROUPS = 6_000
"""Largest component whose matrix of similarities is made: 290 MB."""

_ROUNDS = 8
"""Rounds of merges between two looks for components that are small enough for a matrix, at most."""
_ENOUGH = 0.1
"""Share of the links that a round has to do away with to be worth another one."""
_BLOCK_LINKS = 1 << 20
"""Links worked on between two looks at the interrupt."""
_NOBODY = np.uint32(0xFFFF_FFFF)
_FAR = -3.0
"""Less than every similarity and every threshold."""


def merge_above(
    groups: Groups, links: Links, threshold_cosine: float, *, interrupt: Interrupt, progress: Progress
) -> None:
    """Merge groups along the hierarchy of average linkage until no average is above the threshold.

    Args:
        groups: what to merge; changed in place.
        links: average similarities of pairs of groups, all pairs that have one above the threshold, each
            once, in any order. Links at the threshold or below are left out.
        threshold_cosine: strict, and rounded to float32, as for links between objects.
        progress: told of the stage "linkage".

    Raises:
        Cancelled, TaskError: by `interrupt`; the groups are then of no use.
    """
    level = np.float32(threshold_cosine)
    above = links.similarity > level
    # No second copy of what may be hundreds of megabytes.
    links = groups.allowed(links if above.all() else _select(links, above))
    total = max(len(links), 1)
    while len(links):
        for _ in range(_ROUNDS):
            before = len(links)
            links = _round(groups, links, level, interrupt)
            progress("linkage", 1 - len(links) / total)
            if not len(links):
                return
            if before - len(links) < _ENOUGH * before:
                break
        # Where everything is nearest to one growing group, a round merges one pair of a component.
        links = _merge_small_components(groups, links, level, interrupt)
        links = _merge_strongest(groups, links, level, interrupt)


def _select(links: Links, keep: npt.NDArray[np.bool_]) -> Links:
    return Links(links.a[keep], links.b[keep], links.similarity[keep])


def _blocks(count: int) -> Iterator[slice]:
    return (slice(first, first + _BLOCK_LINKS) for first in range(0, count, _BLOCK_LINKS))


# -- many merges at once ---------------------------------------------------------------------------------


def _round(groups: Groups, links: Links, level: np.float32, interrupt: Interrupt) -> Links:
    """Merge all pairs of groups that are each other's nearest; return the links that are then there."""
    nearest = _nearest(len(groups.parent), links, interrupt)
    names = np.flatnonzero(nearest != _NOBODY)
    partner = nearest[names]
    mutual = (nearest[partner] == names) & (names < partner)
    older, younger = names[mutual], partner[mutual].astype(np.int64)
    sizes = groups.sizes.copy()
    groups.merge(older, younger, interrupt)
    return _update(groups, sizes, links, level, interrupt)


def _update(
    groups: Groups, sizes: npt.NDArray[np.int64], links: Links, level: np.float32, interrupt: Interrupt
) -> Links:
    """The links between groups as they are now, from those between the groups that had these sizes."""
    changed = groups.sizes != sizes
    parts = [no_links()]
    affected = [no_links()]
    for block in _blocks(len(links)):
        part = Links(links.a[block], links.b[block], links.similarity[block])
        is_affected = changed[part.a] | changed[part.b]
        parts.append(_select(part, ~is_affected))
        affected.append(_select(part, is_affected))
        interrupt.check()
    together = concatenate_links(affected)
    affected.clear()  # held once while it is contracted
    parts.append(_contract(groups, sizes, together, level, interrupt))
    return concatenate_links(parts)


def _nearest(count: int, links: Links, interrupt: Interrupt) -> npt.NDArray[np.uint32]:
    """The nearest group of each, of equally near ones the oldest; shape (count,)."""
    best = np.full(count, _FAR, np.float32)
    for block in _blocks(len(links)):
        np.maximum.at(best, links.a[block], links.similarity[block])
        np.maximum.at(best, links.b[block], links.similarity[block])
        interrupt.check()
    nearest = np.full(count, _NOBODY, np.uint32)
    for block in _blocks(len(links)):
        a, b, similarity = links.a[block], links.b[block], links.similarity[block]
        for one, other in ((a, b), (b, a)):
            is_best = similarity == best[one]
            np.minimum.at(nearest, one[is_best], other[is_best])
        interrupt.check()
    return nearest


def _contract(
    groups: Groups, sizes: npt.NDArray[np.int64], links: Links, level: np.float32, interrupt: Interrupt
) -> Links:
    """Links between merged groups, from the links of which an end was merged.

    `sizes`: of the groups before they merged.
    """
    weights = (sizes[links.a] * sizes[links.b]).astype(np.float64)
    group_of = groups.group_of()
    one, other = group_of[links.a], group_of[links.b]
    a, b = np.minimum(one, other).astype(np.uint32), np.maximum(one, other).astype(np.uint32)
    del one, other
    parts = [no_links()]
    for some in _parts_by(a):
        part = some[a[some] != b[some]]  # the others: both ends merged with each other
        if len(part):
            between = Links(a[part], b[part], links.similarity[part])
            found = _average(groups, between, weights[part], interrupt)
            parts.append(groups.allowed(_select(found, found.similarity > level)))
        interrupt.check()
    return concatenate_links(parts)


def _parts_by(a: npt.NDArray[np.uint32]) -> Iterator[npt.NDArray[np.int64]]:
    """Positions in parts of about `_BLOCK_LINKS`, equal values in one part, the lowest values first."""
    count = len(a) // _BLOCK_LINKS + 1
    bounds = np.sort(a[:: max(1, len(a) // (64 * count))])[32::64] if count > 1 else a[:0]
    part_of = np.searchsorted(bounds, a, side="right").astype(np.uint16)
    return (np.flatnonzero(part_of == part) for part in range(len(bounds) + 1))


def _average(groups: Groups, links: Links, weights: npt.NDArray[np.float64], interrupt: Interrupt) -> Links:
    """One link for each pair of groups: the weighted mean where all that it is made of is known."""
    a, b = links.a, links.b
    keys = (a.astype(np.uint64) << np.uint64(32)) | b
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order], weights[order]
    begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    a, b = a[order[begins]], b[order[begins]]
    known = np.add.reduceat(weights, begins)
    total = np.add.reduceat(weights * links.similarity[order], begins)
    wanted = (groups.sizes[a] * groups.sizes[b]).astype(np.float64)
    means = (total / wanted).astype(np.float32)
    partly = np.flatnonzero(known != wanted)
    means[partly] = groups.similarities(a[partly], b[partly], interrupt)
    return Links(a, b, means)


# -- one merge after the other ---------------------------------------------------------------------------


def _merge_small_components(groups: Groups, links: Links, level: np.float32, interrupt: Interrupt) -> Links:
    """Finish all components of the links that have few enough groups for a matrix; return the other links."""
    component, counts = _components(len(groups.parent), links, interrupt)
    is_small = counts[component] <= DENSE_GROUPS
    small = _select(links, is_small)
    order = np.argsort(component[is_small], kind="stable")
    runs = np.flatnonzero(np.diff(component[is_small][order])) + 1
    members, merged_into = [], []
    for run in np.split(order, runs) if len(order) else []:
        part = Links(small.a[run], small.b[run], small.similarity[run])
        inside = np.unique(np.concatenate((part.a, part.b))).astype(np.int64)
        members.append(inside)
        merged_into.append(inside[_merge_densely(groups, inside, part, level, interrupt)])
    if members:
        groups.join(np.concatenate(members), np.concatenate(merged_into), interrupt)
    return _select(links, ~is_small)


def _merge_strongest(groups: Groups, links: Links, level: np.float32, interrupt: Interrupt) -> Links:
    """Merge down to a higher level, above which all components are small; return the links that are left.

    A merge at a level comes before all merges below it, so the hierarchy stays the same.
    """
    count = len(links) // 2
    while count:
        place = len(links) - 1 - count
        higher = np.float32(np.partition(links.similarity, place)[place])
        strongest = _select(links, links.similarity > higher)
        interrupt.check()
        _, counts = _components(len(groups.parent), strongest, interrupt)
        if counts.max(initial=0) <= DENSE_GROUPS:
            sizes = groups.sizes.copy()
            _merge_small_components(groups, strongest, higher, interrupt)
            return _update(groups, sizes, links, level, interrupt)
        count //= 2
    return links


def _components(
    count: int, links: Links, interrupt: Interrupt
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Component of each link, shape (len(links),), and how many groups each component has."""
    labels = connected_components(count, [(links.a, links.b)], interrupt)
    is_linked = np.zeros(count, np.bool_)
    is_linked[links.a] = True
    is_linked[links.b] = True
    return labels[links.a], np.bincount(labels[is_linked], minlength=int(labels.max()) + 1)


def _merge_densely(
    groups: Groups, inside: npt.NDArray[np.int64], links: Links, level: np.float32, interrupt: Interrupt
) -> npt.NDArray[np.int64]:
    """Position in `inside` of the group that each of them ends in: the nearest-neighbour chain algorithm."""
    matrix = groups.matrix(inside, interrupt)
    # What is no link stays none, whatever the last bit of the product says.
    np.minimum(matrix, float(level), out=matrix)
    a, b = np.searchsorted(inside, links.a), np.searchsorted(inside, links.b)
    matrix[a, b] = matrix[b, a] = links.similarity
    np.fill_diagonal(matrix, _FAR)
    if (occupied := groups.occupied()) is not None:
        # An average with it is minus infinity too: what may not merge never will.
        for a, b in occupied.pairs(inside):
            matrix[a, b] = matrix[b, a] = -np.inf
    sizes = groups.sizes[inside].astype(np.float64)
    target = np.arange(len(inside))
    alive = np.ones(len(inside), np.bool_)
    for start in range(len(inside)):
        chain = [start]
        while chain:
            tip = chain[-1]
            # Merged away meanwhile, or nothing is close enough, and so it will stay.
            nearest = int(matrix[tip].argmax()) if alive[tip] else tip
            if nearest == tip or matrix[tip, nearest] <= level:
                chain.pop()
            elif len(chain) > 1 and chain[-2] == nearest:
                del chain[-2:]
                older, younger = min(tip, nearest), max(tip, nearest)
                _merge_rows(matrix, sizes, older, younger)
                alive[younger] = False
                target[younger] = older
                chain = chain or [older]
                interrupt.check()
            else:
                chain.append(nearest)
    while not np.array_equal(target[target], target):
        target = target[target]
    return target


def _merge_rows(
    matrix: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], older: int, younger: int
) -> None:
    share = sizes[younger] / (sizes[older] + sizes[younger])
    row = matrix[older] * (1 - share) + matrix[younger] * share
    row[older] = row[younger] = _FAR
    # A group that was merged away is far from all others, and stays so.
    row[matrix[older] == _FAR] = _FAR
    matrix[older] = matrix[:, older] = row
    matrix[younger] = matrix[:, younger] = _FAR
    sizes[older] += sizes[younger]
