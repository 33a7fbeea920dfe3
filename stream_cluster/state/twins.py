"""Matching of a batch in which descriptors repeat: a stuck camera sends one picture a million times.

Equal codes are linked, and every other row has the same similarity to both, so of all those links the
spanning forest keeps hardly any. One row of each group of equal codes, its first, is matched; the others take
from it what the forest can need of theirs.

Let r be the first of a group, q a later member, s0 the similarity of equal codes, and y any other row. The
link (y, q) has the similarity s of (y, r), which comes before it in the order of links. So where s < s0 the
path by way of (r, q) makes it superfluous. Where s = s0 one with a row y < r may come before (r, q), and of
several such the lowest row is enough. s > s0 is possible by rounding only, for codes that are parallel and
not equal; then nothing is spared, and every row is matched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.codes import inverse_norms, pair_dots, similarities
from stream_cluster.model import Codes, Links

_NONE = np.uint32(0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Groups:
    """Equal codes among some. Positions are those in what was given, in the order of rows."""

    first: npt.NDArray[np.int64]
    """First position of each group, ascending, shape (groups,)."""
    group_of: npt.NDArray[np.int64]
    """Group of each position, shape (n,)."""
    size: npt.NDArray[np.int64]
    """Members of each group, shape (groups,)."""


def find_groups(codes: Codes, is_removed: npt.NDArray[np.bool_]) -> Groups | None:
    """Groups of equal codes, shape (n, dim); None when all are different.

    `is_removed`: rows that the batch itself deletes again, shape (n,). Their links are passed over by some,
    so others must not depend on them: they are groups of their own.
    """
    numbers: dict[bytes, int] = {}
    tails = (b"", b"removed")
    group_of = np.array(
        [
            numbers.setdefault(code.tobytes() + tails[bool(gone)], len(numbers))
            for code, gone in zip(codes, is_removed, strict=True)
        ],
        np.int64,
    )
    if len(numbers) == len(codes):
        return None
    _, first, size = np.unique(group_of, return_index=True, return_counts=True)
    return Groups(first, group_of, size)


@dataclass(slots=True)
class Twins:
    """Sees the links of the first members, and gives those of the others."""

    groups: Groups
    rows: npt.NDArray[np.uint32]
    """Row of each position, ascending, shape (n,)."""
    floor_cosine: float
    is_removed: npt.NDArray[np.bool_]
    """By row of the space, new ones included: rows that the batch deletes."""
    own: npt.NDArray[np.float32] = field(init=False)
    """Similarity of each group's members to each other, shape (groups,)."""
    links_seen: int = 0
    """Links above the floor of all members, as if each had been matched."""
    is_spoilt: bool = False
    """Whether some similarity is above that of equal codes: then every row has to be matched."""
    _lowest: npt.NDArray[np.uint32] = field(init=False)
    """By group: the lowest row before its first that is as similar as a member, and the lowest that stays."""
    _lowest_kept: npt.NDArray[np.uint32] = field(init=False)

    def prepare(self, codes: Codes) -> None:
        """`codes` of the first members, shape (groups, dim)."""
        firsts = codes
        norms = inverse_norms(firsts)
        self.own = similarities(pair_dots(firsts, firsts), norms, norms)
        self._lowest = np.full(len(firsts), _NONE)
        self._lowest_kept = np.full(len(firsts), _NONE)
        size = self.groups.size
        are_linked = self.own > np.float32(self.floor_cosine)
        self.links_seen += int((size * (size - 1) // 2)[are_linked].sum())
        # Not even equal codes are linked; others may be, by rounding.
        self.is_spoilt = bool((~are_linked & (size > 1)).any())

    def see_resident(
        self, rows: npt.NDArray[np.uint32], group: npt.NDArray[np.uint32], similarity: npt.NDArray[np.float32]
    ) -> None:
        """Links of first members to rows that are lower than all of them."""
        self.links_seen += int(self.groups.size[group].sum())
        self._note(rows, group, similarity)

    def see_new(
        self, one: npt.NDArray[np.uint32], other: npt.NDArray[np.uint32], similarity: npt.NDArray[np.float32]
    ) -> None:
        """Links between first members, as numbers of groups, one < other."""
        self.links_seen += int((self.groups.size[one] * self.groups.size[other]).sum())
        rows = self.rows[self.groups.first[one]]
        self._note(rows, other, similarity)
        self.is_spoilt |= bool(((similarity > self.own[one]) & (self.groups.size[one] > 1)).any())

    def _note(
        self, rows: npt.NDArray[np.uint32], group: npt.NDArray[np.uint32], similarity: npt.NDArray[np.float32]
    ) -> None:
        """Look at links of first members to lower rows."""
        own = self.own[group]
        self.is_spoilt |= bool(((similarity > own) & (self.groups.size[group] > 1)).any())
        equal = similarity == own
        rows, group = rows[equal], group[equal]
        np.minimum.at(self._lowest, group, rows)
        kept = ~self.is_removed[rows]
        np.minimum.at(self._lowest_kept, group[kept], rows[kept])

    def others(self) -> Links:
        """Links of all members but the first ones that the forest may need."""
        groups = self.groups
        is_first = np.zeros(len(groups.group_of), np.bool_)
        is_first[groups.first] = True
        later = np.flatnonzero(~is_first)
        group = groups.group_of[later]
        ends = [
            self.rows[groups.first[group]],
            self._lowest[group],
            self._lowest_kept[group],
        ]
        a = np.concatenate(ends)
        b = np.tile(self.rows[later], len(ends))
        similarity = np.tile(self.own[group], len(ends))
        there = a != _NONE
        return Links(a[there], b[there], similarity[there])
