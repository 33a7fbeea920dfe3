"""Objects that are different people, because one frame shows both: no merge puts them together.

Two groups that may not merge never may, whatever they grow to, so average linkage stays reducible
(`stream_cluster.graph.average`) when they count as infinitely far: merging all pairs that are each other's
nearest of those allowed gives the hierarchy that merges the closest allowed pair first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer]

_BLOCK_ENTRIES = 1 << 20


class Apart:
    """Who is in which frame. Two objects of one frame are to be kept apart unless they are one person.

    Frames with one person are left out: memory grows with the objects of the others.
    """

    def __init__(self, objects: Ids, frames: Ids, people: Ids) -> None:
        """Parallel arrays: an object, the number of its frame, below 2**32, and the number of its person."""
        order = np.lexsort((people, frames))
        objects, frames, people = objects[order], frames[order], people[order]
        is_new = np.ones(len(frames), np.bool_)
        is_new[1:] = frames[1:] != frames[:-1]
        begins = np.flatnonzero(is_new)
        counts = np.diff(np.append(begins, len(frames)))
        several = np.repeat(people[begins] != people[begins + counts - 1], counts)
        self.objects = objects[several].astype(np.int64)
        self.frames = frames[several].astype(np.int64)
        self.people = people[several].astype(np.int64)

    def __len__(self) -> int:
        return len(self.objects)

    def renamed(self, names: Ids) -> Apart:
        """The same of objects that have other numbers: `names[object]`, or -1 for those to be left out."""
        renamed = np.asarray(names)[self.objects]
        kept = renamed >= 0
        return Apart(renamed[kept], self.frames[kept], self.people[kept])

    def among(self, group_of: Ids) -> Occupied:
        """Who is in which group. `group_of`: group of each object; no group holds two that are apart."""
        return Occupied(self, group_of)


class Occupied:
    """Which frames each group has somebody in, and whom."""

    def __init__(self, apart: Apart, group_of: Ids) -> None:
        keys = (group_of[apart.objects].astype(np.uint64) << np.uint64(32)) | apart.frames.astype(np.uint64)
        self._keys, first = np.unique(keys, return_index=True)
        self._people = apart.people[first]
        self._groups = (self._keys >> np.uint64(32)).astype(np.int64)
        self._frames = (self._keys & np.uint64(0xFFFF_FFFF)).astype(np.int64)
        self._counts = np.bincount(self._groups, minlength=len(group_of))
        self._begins = np.cumsum(self._counts) - self._counts

    def names(self) -> npt.NDArray[np.int64]:
        """Groups that are in some frame."""
        return np.flatnonzero(self._counts)

    def entries(self, group: int) -> list[tuple[int, int]]:
        """(frame, person) of a group."""
        at = slice(self._begins[group], self._begins[group] + self._counts[group])
        return list(zip(self._frames[at].tolist(), self._people[at].tolist(), strict=True))

    def conflict(self, a: Ids, b: Ids) -> npt.NDArray[np.bool_]:
        """Whether the groups a[i] and b[i] hold different people of one frame, shape (k,)."""
        result = np.zeros(len(a), np.bool_)
        is_fewer = self._counts[a] <= self._counts[b]
        few, many = np.where(is_fewer, a, b).astype(np.int64), np.where(is_fewer, b, a).astype(np.int64)
        pairs = np.flatnonzero(self._counts[few])
        ends = np.cumsum(self._counts[few[pairs]])
        # Blocks of pairs with about as many entries; one pair may have more.
        bounds = np.arange(_BLOCK_ENTRIES, ends[-1] if len(ends) else 0, _BLOCK_ENTRIES)
        cuts = np.unique(np.searchsorted(ends, bounds))
        for part in np.split(pairs, cuts):
            counts = self._counts[few[part]]
            pair = np.repeat(part, counts)
            place = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
            entry = self._begins[few[pair]] + place
            wanted = (many[pair].astype(np.uint64) << np.uint64(32)) | self._frames[entry].astype(np.uint64)
            found = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            is_other = (self._keys[found] == wanted) & (self._people[found] != self._people[entry])
            result[pair[is_other]] = True
        return result

    def pairs(self, groups: Ids) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """All conflicts among some groups, as positions in `groups`, in blocks; a pair may come again."""
        counts = self._counts[groups]
        position = np.repeat(np.arange(len(groups)), counts)
        place = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        entry = self._begins[groups[position]] + place
        order = np.argsort(self._frames[entry], kind="stable")
        position, frame, person = position[order], self._frames[entry][order], self._people[entry][order]
        distance, left = 1, np.arange(len(position) - 1)
        while len(left := left[left + distance < len(frame)]):
            left = left[frame[left] == frame[left + distance]]
            differ = left[person[left] != person[left + distance]]
            yield position[differ], position[differ + distance]
            distance += 1
