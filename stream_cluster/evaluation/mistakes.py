"""The worst merges, clusters of several people, and the worst splits, people in several clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.evaluation.measures import contingency, pairs_in

SHOWN_PARTS = 5
SHOWN_OBJECTS = 3

Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Part:
    """Objects of a mistake that are one person's in a cluster, or in one cluster of a person."""

    label: int
    """Person of a merge's part, cluster of a split's."""
    objects: int
    examples: list[int]
    """Positions of the first of them, at most `SHOWN_OBJECTS`."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A cluster that holds several people, or a person that several clusters hold."""

    label: int
    """Cluster of a merge, person of a split."""
    objects: int
    wrong_pairs: int
    """Pairs of its objects that belong apart (merge), or together (split)."""
    parts: list[Part]
    """The largest, at most `SHOWN_PARTS`."""
    parts_in_all: int


def worst_merges(clusters: Ints, people: Ints, count: int) -> list[Mistake]:
    """The `count` clusters with the most pairs of different people; of equal ones the lowest number first.

    `clusters`, `people`: number of each object, shape (n,), n ≥ 1.
    """
    table = contingency(clusters, people)
    wrong = table.wrong_pairs()
    worst = np.argsort(-wrong, kind="stable")[:count]
    numbers = np.unique(clusters)
    return [
        _mistake(int(numbers[place]), int(wrong[place]), clusters, people)
        for place in worst.tolist()
        if wrong[place]
    ]


def worst_splits(clusters: Ints, people: Ints, count: int) -> list[Mistake]:
    """The `count` people with the most pairs in different clusters; as `worst_merges`."""
    return worst_merges(people, clusters, count)


def _mistake(label: int, wrong_pairs: int, labels: Ints, others: Ints) -> Mistake:
    members = np.flatnonzero(labels == label)
    found, part_of, sizes = np.unique(others[members], return_inverse=True, return_counts=True)
    assert wrong_pairs == pairs_in(sizes.sum()) - pairs_in(sizes).sum()
    parts = [
        Part(int(found[part]), int(sizes[part]), members[part_of == part][:SHOWN_OBJECTS].tolist())
        for part in np.argsort(-sizes, kind="stable")[:SHOWN_PARTS].tolist()
    ]
    return Mistake(label, len(members), wrong_pairs, parts, len(found))
