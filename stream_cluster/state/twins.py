"""Matching of a batch in which descriptors repeat: a stuck camera sends one picture a million times.

Equal codes are linked, and every other row has the same similarity to both, so of all those links the
spanning forest keeps hardly any. One row of each group of equal codes, its first, is matched; the others take
from it what the forest can need of theirs.

Let r be the first of a group, q a later member, s0 the similarity of equal codes, and y any other row. The
link (y, q) has the similarity s of (y, r), which comes before it in the order of links. So where s < s0 the
path by way of (r, q) makes it superfluous. Where s = s0 one with a row y < r may come before (r, q), and of
several such the lowest row is enough. s > s0 is possible by rounding only, for codes that are parallel and
not equal; then nothing is spared, and every row is matched.

None of this asks that r is in the batch: a code that many resident rows have is remembered with what its next
row needs, the lowest row that is as similar and the number of its links, and is not matched again. Otherwise
each batch would find, reduce and store as many links as there are such rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.codes import inverse_norms, pair_dots, similarities
from stream_cluster.model import Codes, Links

_NONE = np.uint32(0xFFFF_FFFF)
MIN_TWINS = 64
"""Rows that are as similar as equal codes are, from which on a code is remembered."""
_MAX_KNOWN = 64


@dataclass(frozen=True, slots=True)
class Groups:
    """Equal codes among some. Positions are those in what was given, in the order of rows."""

    first: npt.NDArray[np.int64]
    """First position of each group, ascending, shape (groups,)."""
    group_of: npt.NDArray[np.int64]
    """Group of each position, shape (n,)."""
    size: npt.NDArray[np.int64]
    """Members of each group, shape (groups,)."""


def are_dense(links: int, rows: int) -> bool:
    """Whether new rows have so many links that codes may repeat from batch to batch, and not within one."""
    return links >= MIN_TWINS * rows


def find_groups(codes: Codes, is_removed: npt.NDArray[np.bool_]) -> Groups:
    """Groups of equal codes, shape (n, dim).

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
    _, first, size = np.unique(group_of, return_index=True, return_counts=True)
    return Groups(first, group_of, size)


@dataclass(slots=True)
class Known:
    """A code that many rows of a space have."""

    row: int
    """One of them."""
    code: Codes
    """Shape (dim,)."""
    own: np.float32
    """Similarity of equal codes."""
    lowest: int
    """The lowest row that is as similar."""
    linked: int
    """Rows whose similarity is above the floor, those with the code included."""


@dataclass(slots=True)
class Lesson:
    """What a batch tells about the codes of its space; true once it is committed."""

    more: dict[bytes, int] = field(default_factory=dict)
    """By known code: new rows whose similarity is above the floor."""
    new: list[Known] = field(default_factory=list)
    is_dense: bool = False
    """Whether rows have so many links that some code may repeat, batch after batch."""
    is_void: bool = False
    """Whether nothing that was known is true any more."""


class KnownTwins:
    """The codes of one space that are known to repeat, by their bytes; a bounded number."""

    def __init__(self) -> None:
        self.by_code: dict[bytes, Known] = {}
        self.is_dense = False

    def forget(self) -> None:
        """Nothing that was known is true any more."""
        self.by_code.clear()

    def learn(self, lesson: Lesson) -> None:
        """Take what a committed batch told."""
        if lesson.is_void:
            self.forget()
        for code, more in lesson.more.items():
            # To the end: those that have not come for longest are forgotten first.
            known = self.by_code.pop(code, None)
            if known is not None:
                known.linked += more
                self.by_code[code] = known
        for known in lesson.new:
            self.by_code[known.code.tobytes()] = known
        while len(self.by_code) > _MAX_KNOWN:
            del self.by_code[next(iter(self.by_code))]
        self.is_dense = lesson.is_dense


@dataclass(slots=True)
class Twins:
    """Sees the links of the first members, and gives those of the others."""

    groups: Groups
    rows: npt.NDArray[np.uint32]
    """Row of each position, ascending, shape (n,)."""
    floor_cosine: float
    is_removed: npt.NDArray[np.bool_]
    """By row of the space, new ones included: rows that the batch deletes."""
    known: Mapping[bytes, Known] = field(default_factory=dict)
    """Codes that are known to repeat; none where rows go."""
    own: npt.NDArray[np.float32] = field(init=False)
    """Similarity of each group's members to each other, shape (groups,)."""
    links_seen: int = 0
    """Links above the floor of all members, as if each had been matched."""
    is_spoilt: bool = False
    """Whether some similarity is above that of equal codes: then every row has to be matched."""
    lesson: Lesson = field(default_factory=Lesson)
    _codes: Codes = field(init=False)
    _of_group: dict[int, Known] = field(default_factory=dict)
    """By group: what is known of its code."""
    _at_row: dict[int, Known] = field(default_factory=dict)
    _equal: npt.NDArray[np.int64] = field(init=False)
    """By group: rows seen that are as similar as a member, members included."""
    _linked: npt.NDArray[np.int64] = field(init=False)
    """By group: rows seen above the floor, members included."""
    _is_outdone: npt.NDArray[np.bool_] = field(init=False)
    """By group: whether some row is more similar than a member: a code that is not to be remembered."""
    _lowest: npt.NDArray[np.uint32] = field(init=False)
    """By group: the lowest row before its first that is as similar as a member, and the lowest that stays."""
    _lowest_kept: npt.NDArray[np.uint32] = field(init=False)

    def prepare(self, codes: Codes) -> npt.NDArray[np.int64]:
        """`codes` of the first members, shape (groups, dim). Returns the groups that have to be matched."""
        self._codes = codes
        norms = inverse_norms(codes)
        self.own = similarities(pair_dots(codes, codes), norms, norms)
        self._lowest = np.full(len(codes), _NONE)
        self._lowest_kept = np.full(len(codes), _NONE)
        size = self.groups.size
        are_linked = self.own > np.float32(self.floor_cosine)
        self.links_seen += int((size * (size - 1) // 2)[are_linked].sum())
        self._equal, self._linked = size.copy(), size.copy()
        self._is_outdone = ~are_linked
        # Not even equal codes are linked; others may be, by rounding.
        self.is_spoilt = bool((~are_linked & (size > 1)).any())
        is_known = np.zeros(len(codes), np.bool_)
        if self.known:
            self._at_row = {known.row: known for known in self.known.values()}
            for group, code in enumerate(codes):
                known = self.known.get(code.tobytes())
                if known is not None:
                    is_known[group] = True
                    self._recall(group, known)
            self._count_between_known(np.flatnonzero(is_known), norms)
        return np.flatnonzero(~is_known)

    def _recall(self, group: int, known: Known) -> None:
        self._of_group[group] = known
        self._lowest[group] = self._lowest_kept[group] = known.lowest
        self.links_seen += int(self.groups.size[group]) * known.linked

    def _count_between_known(self, groups: npt.NDArray[np.int64], norms: npt.NDArray[np.float32]) -> None:
        """New rows with known codes are linked to rows with known codes, and no match will say so."""
        every = list(self.known.values())
        codes = np.stack([known.code for known in every])
        norms_of_every = inverse_norms(codes)
        for group in groups.tolist():
            dots = pair_dots(np.broadcast_to(self._codes[group], codes.shape), codes)
            found = similarities(dots, norms[group], norms_of_every)
            for position in np.flatnonzero(found > np.float32(self.floor_cosine)).tolist():
                self._add(every[position], int(self.groups.size[group]), found[position])

    def _add(self, known: Known, rows: int, similarity: np.float32) -> None:
        """So many new rows are linked to those with a known code."""
        code = known.code.tobytes()
        self.lesson.more[code] = self.lesson.more.get(code, 0) + rows
        self.is_spoilt |= bool(similarity > known.own)

    def see_resident(
        self,
        rows: npt.NDArray[np.uint32],
        group: npt.NDArray[np.integer],
        similarity: npt.NDArray[np.float32],
    ) -> None:
        """Links of first members to rows that are lower than all of them."""
        self.links_seen += int(self.groups.size[group].sum())
        self._linked += np.bincount(group, minlength=len(self._linked))
        self._note(rows, group, similarity)
        if self._at_row:
            reached = np.isin(rows, np.fromiter(self._at_row, np.uint32, len(self._at_row)))
            for row, one, found in zip(
                rows[reached].tolist(), group[reached].tolist(), similarity[reached], strict=True
            ):
                self._add(self._at_row[row], int(self.groups.size[one]), found)

    def see_new(
        self, one: npt.NDArray[np.uint32], other: npt.NDArray[np.uint32], similarity: npt.NDArray[np.float32]
    ) -> None:
        """Links between first members, as numbers of groups, one < other."""
        size = self.groups.size
        self.links_seen += int((size[one] * size[other]).sum())
        np.add.at(self._linked, one, size[other])
        np.add.at(self._linked, other, size[one])
        rows = self.rows[self.groups.first[one]]
        self._note(rows, other, similarity)
        self._outdo(one[similarity > self.own[one]])

    def _outdo(self, group: npt.NDArray[np.integer]) -> None:
        """Some row is more similar to these groups than their members are to each other."""
        self._is_outdone[group] = True
        # One that has no other member, neither in the batch nor before it, spares nothing.
        self.is_spoilt |= bool((self.groups.size[group] > 1).any()) or any(
            one in self._of_group for one in np.unique(group).tolist()
        )

    def _note(
        self,
        rows: npt.NDArray[np.uint32],
        group: npt.NDArray[np.integer],
        similarity: npt.NDArray[np.float32],
    ) -> None:
        """Look at links of first members to lower rows."""
        own = self.own[group]
        self._outdo(group[similarity > own])
        equal = similarity == own
        rows, group = rows[equal], group[equal]
        self._equal += np.bincount(group, minlength=len(self._equal))
        np.minimum.at(self._lowest, group, rows)
        kept = ~self.is_removed[rows]
        np.minimum.at(self._lowest_kept, group[kept], rows[kept])

    def others(self) -> Links:
        """Links of all members but the matched ones that the forest may need."""
        groups = self.groups
        is_matched = np.zeros(len(groups.group_of), np.bool_)
        is_matched[groups.first] = True
        is_matched[groups.first[list(self._of_group)]] = False
        later = np.flatnonzero(~is_matched)
        group = groups.group_of[later]
        first = self.rows[groups.first[group]]
        ends = [
            np.where(first == self.rows[later], _NONE, first),
            self._lowest[group],
            self._lowest_kept[group],
        ]
        a = np.concatenate(ends)
        b = np.tile(self.rows[later], len(ends))
        similarity = np.tile(self.own[group], len(ends))
        there = a != _NONE
        return Links(a[there], b[there], similarity[there])

    def learned(self) -> Lesson:
        """What is known once the batch is committed, which deletes no row."""
        size = self.groups.size
        wanted = (self._equal >= MIN_TWINS) & ~self._is_outdone
        wanted[list(self._of_group)] = False
        for group in np.flatnonzero(wanted).tolist():
            first = int(self.rows[self.groups.first[group]])
            self.lesson.new.append(
                Known(
                    row=first,
                    code=self._codes[group].copy(),
                    own=self.own[group],
                    lowest=min(first, int(self._lowest[group])),
                    linked=int(self._linked[group]),
                )
            )
        self.lesson.is_dense = are_dense(self.links_seen, int(size.sum()))
        return self.lesson
