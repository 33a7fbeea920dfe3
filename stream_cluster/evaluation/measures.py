"""How well clusters match people: pairwise and BCubed F, adjusted Rand index, V-measure.

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
        return _harmonic_mean(self.precision, self.recall)


def _harmonic_mean(one: float, other: float) -> float:
    return 2.0 * one * other / (one + other) if one + other else 0.0


@dataclass(frozen=True, slots=True)
class VMeasure:
    """Shares of entropy in [0, 1]. Rosenberg, Hirschberg, "V-Measure", EMNLP-CoNLL 2007, with beta = 1."""

    homogeneity: float
    """How much the cluster says about the person: 1 when every cluster holds one person."""
    completeness: float
    """How much the person says about the cluster: 1 when every person is in one cluster."""

    @property
    def v(self) -> float:
        """Their harmonic mean; 0 when both are 0."""
        return _harmonic_mean(self.homogeneity, self.completeness)


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
    v_measure: VMeasure
    clusters: int
    people: int
    largest_cluster: int
    largest_impure_cluster: int
    """Objects of the largest cluster that holds more than one person; 0 when none does."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        scores = {
            name: {"precision": score.precision, "recall": score.recall, "f": score.f}
            for name, score in (("pairwise", self.pairwise), ("bcubed", self.bcubed))
        }
        return {
            **scores,
            "adjusted_rand": self.adjusted_rand,
            "homogeneity": self.v_measure.homogeneity,
            "completeness": self.v_measure.completeness,
            "v_measure": self.v_measure.v,
            "clusters": self.clusters,
            "people": self.people,
            "largest_cluster": self.largest_cluster,
            "largest_impure_cluster": self.largest_impure_cluster,
        }


@dataclass(frozen=True, slots=True)
class Contingency:
    """Who is where: sizes of the clusters, of the people, and of each cluster's share of each person."""

    cells: Counts
    """Objects in each non-empty (cluster, person) cell."""
    cluster_of_cell: Counts
    person_of_cell: Counts
    clusters: Counts
    """Objects in each cluster."""
    people: Counts
    """Objects of each person."""

    def wrong_pairs(self) -> Counts:
        """Of each cluster, the pairs in it that are not of one person."""
        right = np.zeros(len(self.clusters), np.int64)
        np.add.at(right, self.cluster_of_cell, pairs_in(self.cells))
        return pairs_in(self.clusters) - right


def measure(clusters: npt.ArrayLike, people: npt.ArrayLike) -> Quality:
    """Compare two labellings of the same objects: arrays of equal length n ≥ 1, any label values.

    Raises `ValueError` for arrays that are empty or of different lengths.
    """
    table = contingency(np.asarray(clusters), np.asarray(people))
    together, in_clusters, in_people = (
        int(pairs_in(sizes).sum()) for sizes in (table.cells, table.clusters, table.people)
    )
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
        v_measure=_v_measure(table, objects),
        clusters=len(table.clusters),
        people=len(table.people),
        largest_cluster=int(table.clusters.max()),
        largest_impure_cluster=int(table.clusters[table.wrong_pairs() > 0].max(initial=0)),
    )


def contingency(clusters: npt.NDArray[Any], people: npt.NDArray[Any]) -> Contingency:
    """The non-empty cells of two labellings. Clusters and people are numbered in the order of their labels.

    Raises `ValueError`, see `measure`.
    """
    if clusters.shape != people.shape or clusters.ndim != 1 or not len(clusters):
        raise ValueError(
            f"labels must be two equally long arrays, found shapes {clusters.shape} and {people.shape}"
        )
    cluster_sizes, cluster = _counted(clusters)
    people_sizes, person = _counted(people)
    keys, cells = np.unique(cluster * np.int64(len(people_sizes)) + person, return_counts=True)
    cluster_of_cell, person_of_cell = np.divmod(keys, len(people_sizes))
    return Contingency(cells.astype(np.int64), cluster_of_cell, person_of_cell, cluster_sizes, people_sizes)


def _counted(labels: npt.NDArray[Any]) -> tuple[Counts, Counts]:
    """Size of each label, and each object's label as 0..k-1."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts.astype(np.int64), inverse.astype(np.int64)


def pairs_in(sizes: Counts) -> Counts:
    """Pairs of two different objects in groups of these sizes."""
    return sizes * (sizes - 1) // 2


def _v_measure(table: Contingency, objects: int) -> VMeasure:
    # H(person | cluster), from p(cell) log(p(cell) / p(cluster)); and the other way round.
    shares = table.cells / objects
    persons = -float((shares * np.log(table.cells / table.clusters[table.cluster_of_cell])).sum())
    clusters = -float((shares * np.log(table.cells / table.people[table.person_of_cell])).sum())
    return VMeasure(
        _explained(persons, _entropy(table.people, objects)),
        _explained(clusters, _entropy(table.clusters, objects)),
    )


def _entropy(sizes: Counts, objects: int) -> float:
    shares = sizes / objects
    return -float((shares * np.log(shares)).sum())


def _explained(left: float, entropy: float) -> float:
    """Share of an entropy that is not left; 1 where there was nothing to explain."""
    return max(0.0, 1.0 - left / entropy) if entropy else 1.0


def _adjusted_rand(together: int, in_clusters: int, in_people: int, all_pairs: int) -> float:
    expected = in_clusters * in_people / all_pairs if all_pairs else 0.0
    most = (in_clusters + in_people) / 2
    # Both labellings are all apart or all together: they are equal, and the formula is 0 / 0.
    return (together - expected) / (most - expected) if most != expected else 1.0
