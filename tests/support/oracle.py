"""Slow and obvious answers that the matching and graph tests compare with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from stream_cluster.matching.protocol import Hits
from stream_cluster.model import Links


def naive_similarity(a, b):
    """Similarity of every row of `a` to every row of `b`, from int64 dot products; float32, (n, m)."""
    dots = a.astype(np.int64) @ b.astype(np.int64).T
    scale = naive_inverse_norms(a)[:, None] * naive_inverse_norms(b)[None, :]
    assert scale.dtype == np.float32
    return np.minimum(dots.astype(np.float32) * scale, np.float32(1))


def naive_inverse_norms(codes):
    """1 / norm of each row as the definition has it, one Python number at a time."""
    squares = [sum(int(value) ** 2 for value in row) for row in codes]
    return np.array([1 / np.sqrt(np.float64(s)) if s else 0 for s in squares], np.float32)


def naive_hits(queries, resident, threshold):
    """The set of (query, row, similarity bits) above the threshold."""
    similarity = naive_similarity(queries, resident)
    query, row = np.nonzero(similarity > np.float32(threshold))
    return set(zip(query.tolist(), row.tolist(), _bits(similarity[query, row]), strict=True))


def naive_links(codes, threshold):
    """The set of (a, b, similarity bits), a < b, above the threshold."""
    return {hit for hit in naive_hits(codes, codes, threshold) if hit[0] < hit[1]}


def as_set(parts: Iterable[Hits] | Iterable[Links]):
    """Chunks of hits or links as a set like those above; a pair reported twice is an error."""
    found = []
    for part in parts:
        left, right = (part.query, part.row) if isinstance(part, Hits) else (part.a, part.b)
        assert left.dtype == right.dtype == np.uint32
        assert part.similarity.dtype == np.float32
        found += zip(left.tolist(), right.tolist(), _bits(part.similarity), strict=True)
    assert len({(left, right) for left, right, _ in found}) == len(found), "a pair was reported twice"
    return set(found)


def naive_components(n_rows, pairs):
    """Component of each row, numbered in the order of lowest rows, by repeated relabelling."""
    label = list(range(n_rows))
    for a, b in pairs:
        old, new = max(label[a], label[b]), min(label[a], label[b])
        label = [new if value == old else value for value in label]
    numbers = {value: number for number, value in enumerate(dict.fromkeys(label))}
    return [numbers[value] for value in label]


def _bits(similarity):
    return np.ascontiguousarray(similarity).view(np.uint32).tolist()


def constrained_clusters(codes, threshold, *, tracks=None, frames=None, people=None, low=()):
    """Average linkage with a quality gate and frames, by trying all pairs of groups again and again.

    Args:
        tracks: of each position, None for none; members of one begin as a group, but for those of `low`.
        frames: of each position, None for none; two positions of one frame and unequal `people` stay apart.
        low: positions that are attached at the end.

    Returns:
        The clusters as sets of positions; how many pairs of clusters, before anything was attached, only the
        frames keep apart; and the smallest difference between two numbers that were compared.
    """
    units = codes / np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    similarity = units @ units.T
    count, low = len(codes), set(low)
    frames, people = frames or [None] * count, people or list(range(count))
    groups, close = {}, [1.0]
    for position in range(count):
        track = None if tracks is None else tracks[position]
        groups.setdefault(("alone", position) if track is None else track, []).append(position)
    # A low object counts in its track for frames, not for averages.
    formed = [group for group in groups.values() if not low.issuperset(group)]
    waiting = [group for group in groups.values() if low.issuperset(group)]

    def average(one, other):
        good = [[member for member in group if member not in low] or group for group in (one, other)]
        return similarity[np.ix_(*good)].mean()

    def apart(one, other):
        return any(
            frames[a] is not None and frames[a] == frames[b] and people[a] != people[b]
            for a in one
            for b in other
        )

    def above(firsts, seconds, first_of):
        """Allowed pairs above the threshold, the most similar first, then the oldest."""
        found = []
        for i, one in enumerate(firsts):
            for j, other in enumerate(seconds[first_of(i) :], first_of(i)):
                value = average(one, other)
                close.append(abs(value - threshold))
                if value > threshold and not apart(one, other):
                    found.append((-value, i, j))
        found.sort()
        close.extend(b[0] - a[0] for a, b in itertools.pairwise(found))
        return found

    while pairs := above(formed, formed, lambda i: i + 1):
        _, i, j = pairs[0]
        formed[i] += formed.pop(j)
        formed.sort(key=min)
    prevented = sum(average(a, b) > threshold for a, b in itertools.combinations(formed, 2))
    clusters = [list(group) for group in formed]
    left = set(range(len(waiting)))
    for _, i, j in above(waiting, formed, lambda _: 0):
        if i in left and not apart(waiting[i], clusters[j]):
            clusters[j] += waiting[i]
            left.remove(i)
    clusters += [waiting[i] for i in left]
    return {frozenset(group) for group in clusters}, prevented, min(close)


def average_clusters(codes, threshold, tracks=None):
    """Average linkage cut at a threshold, as sets of positions: always the closest two merge.

    `tracks`: of each position, None for none; members of one begin as a group.
    """
    units = codes / np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    similarity = units @ units.T
    groups = {}
    for position in range(len(codes)):
        track = None if tracks is None else tracks[position]
        groups.setdefault(("alone", position) if track is None else track, []).append(position)
    groups = list(groups.values())
    while len(groups) > 1:
        average, first, second = max(
            (similarity[np.ix_(one, other)].mean(), -i, -j)
            for i, one in enumerate(groups)
            for j, other in enumerate(groups[:i])
        )
        if not average > threshold:
            break
        groups[-second] += groups.pop(-first)
    return {frozenset(group) for group in groups}
