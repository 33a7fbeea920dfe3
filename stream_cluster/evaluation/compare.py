"""What became of the clusters of one archive in another: two results of the same account, at two times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from stream_cluster.evaluation.archive import ArchivedClusters
from stream_cluster.evaluation.measures import measure

Kind = Literal["merged", "split", "gone", "new", "grown", "shrunk", "unchanged"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they are worth looking at."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of clusters that share objects. Positions are those of `ArchivedClusters.lines`.

        merged      objects come from several old clusters              several -> one
        split       objects went to several new clusters                one -> several
        gone        no object is in the new archive                     one -> none
        new         no object was in the old archive                    none -> one
        grown       it has objects that it had not                      one -> one
        shrunk      it lost objects, and has no others                  one -> one
        unchanged   it has the same objects                             one -> one

    Of a cluster that was both split and merged, both are told: once as a split, and once as a merge.
    """

    kind: Kind
    old: list[int]
    """Those with more objects in the new ones first."""
    new: list[int]
    """Those with more objects of the old ones first."""
    objects: int
    """Of the new clusters; of the old one when it is gone."""
    gained: int
    """Objects of `new` that are not of `old`."""
    lost: int
    """Objects of `old` that are not of `new`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two archives beside each other."""

    objects_old: int
    objects_new: int
    common: int
    """Objects in both."""
    adjusted_rand: float | None
    """Of the common objects: 1 for equal clusters, 0 for chance. None without common objects."""
    changes: list[Change]
    """All but unchanged clusters, by kind; of each kind the largest first."""
    counts: Mapping[Kind, int]
    """How many changes of each kind there are, unchanged clusters included."""


@dataclass(frozen=True, slots=True)
class _Cells:
    """Pairs of an old and a new cluster that share objects: parallel arrays, sorted by (old, new)."""

    old: Ids
    new: Ids
    shared: Ids
    """Objects in both."""


def compare(old: ArchivedClusters, new: ArchivedClusters) -> Comparison:
    """What became of each cluster of `old` in `new`, by the objects that they share."""
    before, after = _common(old, new)
    cells = _cells(before, after)
    several_new = np.bincount(cells.old, minlength=len(old.lines))
    several_old = np.bincount(cells.new, minlength=len(new.lines))
    sizes_old, sizes_new = old.sizes, new.sizes
    counts: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    changes: list[Change] = []

    def note(kind: Kind, olds: Sequence[int], news: Sequence[int], shared: int) -> None:
        counts[kind] += 1
        had, has = int(sizes_old[olds].sum()), int(sizes_new[news].sum())
        changes.append(Change(kind, [*olds], [*news], has or had, has - shared, had - shared))

    for position in np.flatnonzero(several_old == 0).tolist():
        note("new", [], [position], 0)
    for position in np.flatnonzero(several_new == 0).tolist():
        note("gone", [position], [], 0)
    for position, others, shared in _groups(cells.new, cells.old, cells.shared, several_old):
        note("merged", others, [position], shared)
    for position, others, shared in _groups(cells.old, cells.new, cells.shared, several_new):
        note("split", [position], others, shared)
    # The rest is one to one. Most of it is usually unchanged, and is only counted.
    single = (several_new[cells.old] == 1) & (several_old[cells.new] == 1)
    a, b, shared_by = cells.old[single], cells.new[single], cells.shared[single]
    gained, lost = sizes_new[b] > shared_by, sizes_old[a] > shared_by
    counts["unchanged"] = int((~gained & ~lost).sum())
    for at in np.flatnonzero(gained | lost).tolist():
        note("grown" if gained[at] else "shrunk", [int(a[at])], [int(b[at])], int(shared_by[at]))
    changes.sort(key=lambda change: (KINDS.index(change.kind), -change.objects, change.new, change.old))
    return Comparison(
        objects_old=len(old.ids),
        objects_new=len(new.ids),
        common=len(before),
        adjusted_rand=measure(before, after).adjusted_rand if len(before) else None,
        changes=changes,
        counts=counts,
    )


def _common(old: ArchivedClusters, new: ArchivedClusters) -> tuple[Ids, Ids]:
    """Old and new line of each common object."""
    line_of = np.repeat(np.arange(len(old.lines)), old.sizes).tolist()
    known = dict(zip(old.ids, line_of, strict=True))
    before = np.fromiter((known.get(object_id, -1) for object_id in new.ids), np.int64, len(new.ids))
    after = np.repeat(np.arange(len(new.lines)), new.sizes)
    common = before >= 0
    return before[common], after[common]


def _cells(before: Ids, after: Ids) -> _Cells:
    most = int(after.max(initial=0)) + 1
    keys, shared = np.unique(before * most + after, return_counts=True)
    return _Cells(keys // most, keys % most, shared.astype(np.int64))


def _groups(whole: Ids, part: Ids, shared: Ids, parts: Ids) -> list[tuple[int, list[int], int]]:
    """Each `whole` with several parts: its position, its parts by objects shared, and these summed."""
    at = np.flatnonzero(parts[whole] > 1)
    at = at[np.lexsort((part[at], -shared[at], whole[at]))]
    begins = np.flatnonzero(np.diff(whole[at], prepend=-1))
    runs = np.split(at, begins[1:]) if len(at) else []
    return [(int(whole[run[0]]), part[run].tolist(), int(shared[run].sum())) for run in runs]
