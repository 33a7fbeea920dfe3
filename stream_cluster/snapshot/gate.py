"""The quality gate: objects of low quality neither form nor join groups, and are attached afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.apart import Occupied
from stream_cluster.graph.groups import Groups
from stream_cluster.graph.nearest import NearestGroups
from stream_cluster.matching import CodeStore, scan
from stream_cluster.model import Codes, Interrupt, Labels
from stream_cluster.snapshot.directions import directions, lowered

Ids = npt.NDArray[np.int64]

TRIED = 32
"""So many groups are tried for an object that may not be in all of them."""
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Gate:
    """Which positions of a selection are of low quality, and which of those have a place all the same.

    With `use_track_info`, a track is one group. A low object of a track that has others follows these. Tracks
    of low objects only are attached as a whole.
    """

    low: npt.NDArray[np.bool_]
    """Shape (n,)."""
    leader: Ids
    """Of a low object that follows its track, the oldest other object of it; -1 of all others. Shape (n,)."""

    @classmethod
    def of(cls, low: npt.NDArray[np.bool_], tracks: Ids | None) -> Gate:
        """`tracks`: number of each position's track, -1 for none; None when tracks are not used."""
        leader = np.full(len(low), -1)
        if tracks is not None and len(low):
            oldest = np.full(int(tracks.max()) + 2, -1)
            passing = np.flatnonzero(~low & (tracks >= 0))[::-1]
            oldest[tracks[passing]] = passing  # from the youngest to the oldest, so that the oldest stays
            leader[low] = oldest[tracks[low]]  # of track -1, the last place: nobody
        return cls(low, leader)

    def passing(self) -> Ids:
        """Positions of the others, in order."""
        return np.flatnonzero(~self.low)

    def leaders(self) -> Ids:
        """Of each position, the one that stands for it: its leader, or itself."""
        return np.where(self.leader < 0, np.arange(len(self.low)), self.leader)


def attach_by_average(groups: Groups, gate: Gate, threshold_cosine: float, interrupt: Interrupt) -> Ids:
    """The group of each object, shape (n,), with the groups of low objects attached to others.

    Each goes to the group with the highest average similarity above the threshold, of equal ones to the
    oldest. Where objects are to be kept apart, the most similar pairs come first, and a group may only go
    where nobody of its frames is by then. The groups themselves stay as they are.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    belongs = groups.group_of().astype(np.int64)[gate.leaders()]
    names = groups.names()
    units, targets = names[gate.low[names] & (gate.leader[names] < 0)], names[~gate.low[names]]
    if not len(units) or not len(targets):
        return belongs
    codes, angle = directions(groups, targets, interrupt)
    store = CodeStore(groups.dim)
    store.append(codes)
    del codes
    occupied = groups.occupied()
    nearest = NearestGroups(1 if occupied is None else TRIED)
    for first in range(0, len(units), _BLOCK):
        some = units[first : first + _BLOCK]
        wanted, own_angle = directions(groups, some, interrupt)
        level = lowered(threshold_cosine, angle + own_angle)
        for hits in scan(store, wanted, level, interrupt=interrupt):
            unit, target = some[hits.query], targets[hits.row]
            similarity = groups.similarities(unit, target, interrupt)
            above = similarity > np.float32(threshold_cosine)
            if occupied is not None:
                above &= ~occupied.conflict(unit, target)
            nearest.add(unit[above], target[above], similarity[above])
    unit, target, _ = nearest.result()
    if occupied is None:
        belongs[unit] = target
    else:
        _attach_in_turn(belongs, unit.tolist(), target.tolist(), occupied)
    return belongs[belongs]  # of the others in a group of low objects: where its oldest went


def _attach_in_turn(belongs: Ids, units: list[int], targets: list[int], occupied: Occupied) -> None:
    """Attach units to the first of their targets that has nobody of their frames by then."""
    taken: dict[tuple[int, int], int] = {}
    attached: set[int] = set()
    for unit, target in zip(units, targets, strict=True):
        if unit in attached:
            continue
        entries = occupied.entries(unit)
        if all(taken.get((target, frame), person) == person for frame, person in entries):
            taken |= {(target, frame): person for frame, person in entries}
            attached.add(unit)
            belongs[unit] = target


def attach_by_link(
    codes: Codes, labels: Labels, gate: Gate, threshold_cosine: float, interrupt: Interrupt
) -> Labels:
    """Connected components with the low objects in them: each goes where its strongest link leads.

    Of equally strong ones the link to the oldest object counts. A track of low objects goes as one.

    Args:
        codes: of the selection, shape (n, dim).
        labels: component of each position, from links of the other objects and from tracks.
        threshold_cosine: a link is above it.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    passing = np.flatnonzero(~gate.low)
    low = np.flatnonzero(gate.low & (gate.leader < 0))
    if not len(passing) or not len(low):
        return labels
    store = CodeStore(codes.shape[1])
    for first in range(0, len(passing), _BLOCK):
        store.append(codes[passing[first : first + _BLOCK]])
    # A track of low objects has a component of its own, which no other object is in.
    nearest = NearestGroups(1)
    for first in range(0, len(low), _BLOCK):
        some = low[first : first + _BLOCK]
        for hits in scan(store, codes[some], threshold_cosine, interrupt=interrupt):
            nearest.add(labels[some[hits.query]].astype(np.int64), passing[hits.row], hits.similarity)
    unit, target, _ = nearest.result()
    to = np.arange(int(labels.max()) + 1)
    to[unit] = labels[target]
    _, numbered = np.unique(to[labels], return_inverse=True)
    return numbered.astype(np.int32)
