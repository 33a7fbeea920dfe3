"""How well clusters match people: pairwise and BCubed precision, recall and F, and the adjusted Rand index.

All are computed from the contingency table of (cluster, person), of which only the non-empty cells are kept:
time O(n log n), memory O(n), however large the clusters are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and their harmonic mean, each in [0, 1]."""

    precision: float
    recall: float

    @property
    def f(self) -> float:
        """2 · precision · recall / (precision + recall); 0 when both are 0."""
        total = self.precision + self.recall
        return 2.0 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Quality:
    """The scores of one clustering."""

    pairwise: Score
    """Of pairs put together, the share of one person; of pairs of one person, the share put together."""
    bcubed: Score
    """Means over objects of the same two shares within the object's cluster and person, itself included.

    Amigó et al., "A comparison of extrinsic clustering evaluation metrics", Information Retrieval 12 (2009).
    """
    adjusted_rand: float
    """1 is equal, 0 is chance. Hubert, Arabie, "Comparing partitions", Journal of Classification 2 (1985)."""
    clusters: int
    people: int
    largest_cluster: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        scores = {
            name: {"precision": score.precision, "recall": score.recall, "f": score.f}
            for name, score in (("pairwise", self.pairwise), ("bcubed", self.bcubed))
        }
        return {
            **scores,
            "adjusted_rand": self.adjusted_rand,
            "clusters": self.clusters,
            "people": self.people,
            "largest_cluster": self.largest_cluster,
        }


@dataclass(frozen=True, slots=True)
class _Contingency:
    cells: Counts
    """Objects in each non-empty (cluster, person) cell."""
    cluster_of_cell: Counts
    person_of_cell: Counts
    clusters: Counts
    """Objects in each cluster."""
    people: Counts
    """Objects of each person."""


def measure(clusters: npt.ArrayLike, people: npt.ArrayLike) -> Quality:
    """Compare two labellings of the same objects: arrays of equal length n ≥ 1, any label values.

    Raises `ValueError` for arrays that are empty or of different lengths.
    """
    table = _contingency(np.asarray(clusters), np.asarray(people))
    together = _pairs(table.cells)
    in_clusters, in_people = _pairs(table.clusters), _pairs(table.people)
    objects = int(table.clusters.sum())
    squares = np.square(table.cells.astype(np.float64))
    return Quality(
        # Nothing claimed is nothing wrong: without pairs a share counts as 1.
        pairwise=Score(
            together / in_clusters if in_clusters else 1.0, together / in_people if in_people else 1.0
        ),
        bcubed=Score(
            float((squares / table.clusters[table.cluster_of_cell]).sum()) / objects,
            float((squares / table.people[table.person_of_cell]).sum()) / objects,
        ),
        adjusted_rand=_adjusted_rand(together, in_clusters, in_people, objects * (objects - 1) // 2),
        clusters=len(table.clusters),
        people=len(table.people),
        largest_cluster=int(table.clusters.max()),
    )


def _contingency(clusters: npt.NDArray[Any], people: npt.NDArray[Any]) -> _Contingency:
    if clusters.shape != people.shape or clusters.ndim != 1 or not len(clusters):
        raise ValueError(
            f"labels must be two equally long arrays, found shapes {clusters.shape} and {people.shape}"
        )
    cluster_sizes, cluster = _counted(clusters)
    people_sizes, person = _counted(people)
    keys, cells = np.unique(cluster * np.int64(len(people_sizes)) + person, return_counts=True)
    cluster_of_cell, person_of_cell = np.divmod(keys, len(people_sizes))
    return _Contingency(cells.astype(np.int64), cluster_of_cell, person_of_cell, cluster_sizes, people_sizes)


def _counted(labels: npt.NDArray[Any]) -> tuple[Counts, Counts]:
    """Size of each label, and each object's label as 0..k-1."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts.astype(np.int64), inverse.astype(np.int64)


def _pairs(sizes: Counts) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _adjusted_rand(together: int, in_clusters: int, in_people: int, all_pairs: int) -> float:
    expected = in_clusters * in_people / all_pairs if all_pairs else 0.0
    most = (in_clusters + in_people) / 2
    # Both labellings are all apart or all together: they are equal, and the formula is 0 / 0.
    return (together - expected) / (most - expected) if most != expected else 1.0
