"""The clusters of one space in memory, at the threshold of cluster updates, and what a batch does to them.

Updates within a batch are told in this order, whatever the order of its records: first what deletes and
new creation times did to the clusters that were there, in the grouping that they have after the batch; then
each new object that is still there, one after another, with the clusters as it found them. An id that goes
and comes again in one batch is thus deleted first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from stream_cluster.graph.components import Rows, connected_components
from stream_cluster.graph.disjoint_sets import DisjointSets
from stream_cluster.graph.removal import marks
from stream_cluster.state.ages import Age, Ages, rows_by_age
from stream_cluster.state.chunks import read_links
from stream_cluster.state.schema import ROW_MASK
from stream_cluster.state.space import Space, SpaceBatch
from stream_cluster.state.watch import Watch

_PIECE_ROWS = 4096
"""Rows whose ids are looked up at once."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one new object did to the clusters."""

    object_id: str
    cluster: str
    merged: list[str]
    """Former ids of other clusters that are now part of `cluster`, the oldest first."""
    strongest: tuple[str, float] | None
    """Object id and cosine of the strongest link to an earlier object."""


@dataclass(frozen=True, slots=True)
class Part:
    """Objects that are in a cluster from now on, and perhaps the rest of a former one."""

    cluster: str
    objects: list[str]
    former: str | None = None


@dataclass(slots=True)
class Plan:
    """What a batch does to the clusters of a space: what there is to tell, and what changes in memory."""

    sets: DisjointSets
    """The clusters as they are before the batch."""
    deleted: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    new_rows: int = 0
    joins: list[tuple[Rows, Rows]] = field(default_factory=list)
    """(rows, their roots from now on), one after another."""
    chosen: dict[int, int] = field(default_factory=dict)
    """Oldest row by root."""

    def apply(self) -> None:
        """Change memory."""
        sets = self.sets
        sets.append(self.new_rows)
        for rows, roots in self.joins:
            sets.join(rows, roots)
        roots = np.fromiter(self.chosen, np.int64, len(self.chosen))
        sets.choose(roots, np.fromiter(self.chosen.values(), np.uint32, len(self.chosen)))


def load_sets(connection: sqlite3.Connection, space: Space, threshold_cosine: float) -> DisjointSets:
    """The clusters of a stored space; the oldest object is the chosen one of each."""
    links = read_links(connection, space.space_id, above=threshold_cosine)
    labels = connected_components(space.next_row, [(links.a, links.b)])
    rows = np.fromiter(rows_by_age(connection, space.space_id), np.int64)[::-1]
    chosen = np.zeros(int(labels.max(initial=-1)) + 1, np.uint32)
    # Written from the youngest to the oldest, so that the oldest stays.
    chosen[labels[rows]] = rows
    return DisjointSets(labels, chosen)


def plan_batch(connection: sqlite3.Connection, batch: SpaceBatch, watch: Watch) -> Plan:
    """What a batch does to the clusters of its space. Changes nothing."""
    times = {row: values["create_time_us"] for row, values in batch.updates if "create_time_us" in values}
    ages = Ages(connection, batch.space.space_id, times)
    plan = Plan(watch.sets, new_rows=len(batch.rows))
    first_new = batch.space.next_row
    plan.deleted = [object_id for row, object_id in batch.removed.items() if row < first_new]
    retimed = np.array([row for row in times if row < first_new], np.uint32)
    touched = np.array([row for row in batch.removed if row < first_new] + retimed.tolist(), np.uint32)
    regrouped = _NOTHING
    if len(touched):
        regrouped = _regroup(plan, batch, ages, touched, retimed)
    if batch.rows:
        _Arrivals(plan, batch, watch, ages, regrouped).run()
    return plan


# -- deletes and new creation times ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Regrouped:
    """Rows of clusters that were touched, ascending, and the root that each has from now on."""

    rows: Rows
    roots: Rows

    def find(self, sets: DisjointSets, rows: Rows) -> Rows:
        """Roots of rows from now on."""
        roots = sets.find(rows)
        if len(self.rows):
            place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
            is_here = self.rows[place] == rows
            roots[is_here] = self.roots[place[is_here]]
        return roots


_NOTHING = _Regrouped(np.empty(0, np.uint32), np.empty(0, np.uint32))


def _regroup(plan: Plan, batch: SpaceBatch, ages: Ages, touched: Rows, retimed: Rows) -> _Regrouped:
    """Find into what the clusters of the touched rows have fallen, and the oldest member of each part."""
    sets, first_new = plan.sets, batch.space.next_row
    of_row = sets.find_all()
    is_member = marks(of_row[touched], first_new)[of_row]
    gone = np.array([row for row in batch.removed if row < first_new], np.uint32)
    is_member[gone] = False
    members = np.flatnonzero(is_member).astype(np.uint32)
    former = of_row[members]
    part = former
    if batch.removal is not None:
        links = batch.removal.remaining
        labels = connected_components(first_new + len(batch.rows), [(links.a, links.b)])
        part = labels[members].astype(np.uint32)
    plan.joins.append((gone, gone))
    if not len(members):
        return _NOTHING
    # Two former clusters that new objects join are still two here: the updates of those objects join them.
    keys, first, group_of = np.unique(
        former.astype(np.uint64) << np.uint64(32) | part, return_index=True, return_inverse=True
    )
    in_groups = members[np.argsort(group_of, kind="stable")]
    groups = np.split(in_groups, np.cumsum(np.bincount(group_of))[:-1])
    by_former: dict[int, list[Rows]] = {}
    for key, group in zip(keys.tolist(), groups, strict=True):
        by_former.setdefault(key >> 32, []).append(group)
    is_retimed = set(of_row[retimed].tolist())
    for root, its_groups in by_former.items():
        (oldest,) = sets.chosen(np.array([root])).tolist()
        _name_groups(plan, ages, oldest, its_groups, is_retimed=root in is_retimed)
    roots = members[first[group_of]]
    plan.joins.append((members, roots))
    return _Regrouped(members, roots)


def _name_groups(plan: Plan, ages: Ages, former_oldest: int, groups: list[Rows], *, is_retimed: bool) -> None:
    """Choose the oldest of each group that a cluster has fallen into, and note what is to be told.

    One group need not be listed: the one that keeps the cluster's id, else the largest.
    `is_retimed`: an age has changed, so even the group of the former oldest member has to be looked at.
    """
    ages.load(np.array([former_oldest]))
    former = ages.id_of(former_oldest)
    keeps = (
        None if is_retimed else next((n for n, group in enumerate(groups) if former_oldest in group), None)
    )
    unlisted = max(range(len(groups)), key=lambda n: len(groups[n])) if keeps is None else keeps
    oldest = [former_oldest if n == keeps else ages.oldest(group) for n, group in enumerate(groups)]
    names = [ages.id_of(row) for row in oldest]
    if former in names:
        unlisted = names.index(former)
    for number, group in enumerate(groups):
        plan.chosen[int(group[0])] = oldest[number]
        if number != unlisted:
            ages.load(group)
            plan.parts.append(Part(names[number], [ages.id_of(row) for row in group.tolist()]))
    if names[unlisted] != former:
        plan.parts.append(Part(names[unlisted], [], former))


# -- new objects -----------------------------------------------------------------------------------------


class _Arrivals:
    """Lets the new objects come one after another, over clusters that are named by their roots."""

    def __init__(
        self, plan: Plan, batch: SpaceBatch, watch: Watch, ages: Ages, regrouped: _Regrouped
    ) -> None:
        self._plan = plan
        self._ages = ages
        self._first_new = batch.space.next_row
        self._objects = [(row[0] & ROW_MASK, row[2]) for row in batch.new_objects]
        for key, _, object_id, create_time_us, *_ in batch.new_objects:
            ages.add(key & ROW_MASK, create_time_us, object_id)
        self._links = watch.arrivals()
        self._has_link, self._strongest, self._similarity = watch.strongest()
        a = self._links.a.copy()
        is_resident = a < self._first_new
        a[is_resident] = regrouped.find(watch.sets, a[is_resident])
        self._partners = a.tolist()
        roots = np.unique(a[is_resident])
        chosen = [
            plan.chosen.get(root, oldest)
            for root, oldest in zip(roots.tolist(), watch.sets.chosen(roots).tolist(), strict=True)
        ]
        resident_ends = self._strongest[self._has_link & (self._strongest < self._first_new)]
        ages.load(np.unique(np.concatenate((np.array(chosen, np.uint32), resident_ends))))
        self._parent: dict[int, int] = {root: root for root in roots.tolist()}
        self._oldest: dict[int, tuple[Age, int]] = {
            root: (ages.of(row), row) for root, row in zip(roots.tolist(), chosen, strict=True)
        }

    def run(self) -> None:
        partners = self._partners
        rows = np.array([row for row, _ in self._objects], np.uint32)
        begins = np.searchsorted(self._links.b, rows)
        ends = np.searchsorted(self._links.b, rows, side="right")
        similarity = self._similarity.tolist()
        strongest = self._strongest.tolist()
        for (row, object_id), begin, end in zip(self._objects, begins.tolist(), ends.tolist(), strict=True):
            merged = self._arrive(row, partners[begin:end])
            number = row - self._first_new
            link = None
            if end > begin:
                link = self._ages.id_of(strongest[number]), similarity[number]
            self._plan.arrivals.append(Arrival(object_id, merged[0], merged[1:], link))
        self._note_memory()

    def _arrive(self, row: int, partners: list[int]) -> list[str]:
        """Join a row with its partners; the id of its cluster, then former ids that are part of it now."""
        own = (self._ages.of(row), row)
        self._parent[row] = row
        self._oldest[row] = own
        if not partners:
            return [own[0][2]]
        roots = sorted({self._find(partner) for partner in partners})
        ages = sorted(self._oldest[root] for root in roots)
        root = roots[0]
        for other in (*roots[1:], row):
            self._parent[other] = root
        self._oldest[root] = min(ages[0], own)
        names = [age[2] for age, _ in ages]
        return [own[0][2], *names] if own < ages[0] else names

    def _find(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def _note_memory(self) -> None:
        rows = list(self._parent)
        roots = [self._find(row) for row in rows]
        self._plan.joins.append((np.array(rows, np.uint32), np.array(roots, np.uint32)))
        for root in set(roots):
            self._plan.chosen[root] = self._oldest[root][1]


def whole_space(connection: sqlite3.Connection, space: Space, sets: DisjointSets) -> Iterator[Part]:
    """All clusters of a stored space in bounded parts: the oldest first, each from its oldest member on."""
    rows = np.fromiter(rows_by_age(connection, space.space_id), np.uint32)
    rank = np.zeros(space.next_row, np.uint32)
    rank[rows] = np.arange(len(rows), dtype=np.uint32)
    oldest = rank[sets.chosen(sets.find(rows))]
    rows = rows[np.argsort(oldest, kind="stable")]
    oldest.sort()
    cluster, last = "", -1
    for begin in range(0, len(rows), _PIECE_ROWS):
        piece = rows[begin : begin + _PIECE_ROWS]
        ages = Ages(connection, space.space_id, {})
        ages.load(piece)
        objects: list[str] = []
        for row, of_cluster in zip(piece.tolist(), oldest[begin : begin + _PIECE_ROWS].tolist(), strict=True):
            object_id = ages.id_of(row)
            if of_cluster != last:
                if objects:
                    yield Part(cluster, objects)
                cluster, last, objects = object_id, of_cluster, []
            objects.append(object_id)
        if objects:
            yield Part(cluster, objects)
