"""The answer that the product must give, from SciPy over cosines, and what may differ near the threshold.

The product stores descriptors as int8 codes, so its similarity differs a little from the cosine of the
vectors. A partition is accepted when that can only have mattered for links close to the threshold t:

- every pair with cosine > t + tolerance is together, and
- nobody is together without a chain of pairs with cosine > t - tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stream_cluster.matching.codes import EXACT_DIMENSIONS, inverse_norms, quantise, similarities
from stream_cluster.model import Labels, Links, concatenate_links

Vectors = npt.NDArray[np.float32]

TOLERANCE = 0.002

# Rows of the similarity matrix computed at a time: 512 × 100,000 floats are 200 MB.
_BLOCK = 512


def cosine_links(vectors: Vectors, floor: float) -> Links:
    """All pairs with cosine > `floor`, in float32. `vectors`: shape (n, dim), no zero row."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    units: Vectors = (vectors / lengths).astype(np.float32)
    return _links_above(len(units), floor, lambda start, stop: units[start:stop] @ units[start:].T)


def code_links(vectors: Vectors, floor: float) -> Links:
    """All pairs whose int8 codes have similarity > `floor`: the links that the product works with."""
    codes = quantise(vectors)
    norms = inverse_norms(codes)
    # float32 sums of products are exact up to EXACT_DIMENSIONS, float64 sums always are.
    exact: npt.NDArray[Any] = codes.astype(np.float32 if codes.shape[1] <= EXACT_DIMENSIONS else np.float64)

    def block(start: int, stop: int) -> Vectors:
        dots = (exact[start:stop] @ exact[start:].T).astype(np.float32)
        return similarities(dots, norms[start:stop, None], norms[None, start:])

    return _links_above(len(codes), floor, block)


def _links_above(count: int, floor: float, block: Callable[[int, int], Vectors]) -> Links:
    """Links a < b; `block(start, stop)` gives the similarities of rows start..stop to rows start..count."""
    parts = []
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        similarity = block(start, stop)
        a, b = np.nonzero(np.triu(similarity > np.float32(floor), k=1))
        parts.append(Links((a + start).astype(np.uint32), (b + start).astype(np.uint32), similarity[a, b]))
    return concatenate_links(parts)


def reference_components(count: int, links: Links, threshold: float) -> Labels:
    """Component of each of `count` objects in the graph of links with similarity > `threshold`."""
    kept = links.above(threshold)
    shape = (count, count)
    graph = coo_array(
        (np.ones(len(kept), np.int8), (kept.a.astype(np.int64), kept.b.astype(np.int64))), shape
    )
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels, np.int32)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether a partition is right apart from links near the threshold."""

    missed: int
    """Pairs with cosine > t + tolerance that are apart."""
    unfounded: int
    """Clusters that no chain of pairs with cosine > t - tolerance holds together."""
    identical: bool
    """Whether the partition equals the components at exactly t."""

    @property
    def accepted(self) -> bool:
        """True when nothing differs but what links within the tolerance explain."""
        return self.missed == 0 and self.unfounded == 0


def within_tolerance(
    labels: npt.NDArray[Any], links: Links, threshold: float, tolerance: float = TOLERANCE
) -> Agreement:
    """Judge a partition: one label per object. `links`: by cosine, complete above threshold - tolerance."""
    labels = np.asarray(labels)
    certain = links.above(threshold + tolerance)
    missed = int(np.count_nonzero(labels[certain.a] != labels[certain.b]))
    possible = reference_components(len(labels), links, threshold - tolerance)
    exact = reference_components(len(labels), links, threshold)
    return Agreement(
        missed=missed,
        unfounded=_split_groups(labels, possible),
        identical=_split_groups(labels, exact) == 0 and _split_groups(exact, labels) == 0,
    )


def _split_groups(groups: npt.NDArray[Any], labels: npt.NDArray[Any]) -> int:
    """How many groups hold objects of more than one label."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    differs = labels != labels[first][group]
    return len(np.unique(group[differs]))


@dataclass(frozen=True, slots=True)
class LinkDifference:
    """Links at one threshold by cosines and by codes."""

    by_cosine: int
    by_code: int
    differing: int
    farthest: float
    """Largest distance of a differing link's cosine from the threshold; 0 when none differs."""


def compare_links(by_cosine: Links, by_code: Links, threshold: float, count: int) -> LinkDifference:
    """Compare the links above `threshold`. Both sets must be complete from a floor well below it.

    Raises `ValueError` for a differing link whose cosine is below the floor of `by_cosine`.
    """
    keys = _keys(by_cosine, count)
    certain, coded = by_cosine.above(threshold), by_code.above(threshold)
    differing = np.setxor1d(_keys(certain, count), _keys(coded, count), assume_unique=True)
    order = np.argsort(keys)
    if not np.isin(differing, keys).all():
        raise ValueError(f"a link differs at threshold {threshold:g} whose cosine is below the floor")
    found = by_cosine.similarity[order[np.searchsorted(keys, differing, sorter=order)]]
    distance = np.abs(found.astype(np.float64) - threshold)
    return LinkDifference(
        len(certain), len(coded), len(differing), float(distance.max()) if len(distance) else 0.0
    )


def _keys(links: Links, count: int) -> npt.NDArray[np.int64]:
    """One integer for each pair."""
    return links.a.astype(np.int64) * count + links.b.astype(np.int64)
