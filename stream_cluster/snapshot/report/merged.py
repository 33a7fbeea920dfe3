"""What connected components would have made one cluster of, where another linkage kept it apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.snapshot.clusters import Clusters


@dataclass(frozen=True, slots=True)
class Merged:
    """Components of several clusters, numbered 0..m-1, those of most objects first."""

    component: npt.NDArray[np.int64]
    """Of each cluster; -1 for one that is a component by itself. Shape (k,)."""
    clusters: npt.NDArray[np.int64]
    """How many are in each component. Shape (m,)."""
    objects: npt.NDArray[np.int64]
    """How many these have together. Shape (m,)."""


def merged_by_components(clusters: Clusters, components: Clusters) -> Merged:
    """Which clusters are in one component. Every cluster lies inside of one."""
    of_cluster = components.numbers[clusters.order[clusters.starts[:-1]]]
    counts = np.bincount(of_cluster, minlength=len(components))
    several = counts > 1
    number = np.where(several, np.cumsum(several) - 1, -1)
    return Merged(number[of_cluster], counts[several], components.sizes[several])
