"""How well clusters hold together: cohesion, the weakest link, bridges; and warnings of those that chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stream_cluster.config import ChainingSettings
from stream_cluster.graph.bridges import smaller_sides
from stream_cluster.graph.forest import descending_bits
from stream_cluster.model import Codes, Interrupt, Links
from stream_cluster.snapshot.clusters import Clusters
from stream_cluster.snapshot.ordered_codes import OrderedCodes
from stream_cluster.snapshot.selection import Selection
from stream_cluster.snapshot.threshold import Threshold
from stream_cluster.snapshot.trees import OF_A_TRACK, only, spanning_trees
from stream_cluster.state.view import PartitionView

_BLOCK_ROWS = 4096
_MOST_NAMED = 20
_DIGITS = 6
"""Of a similarity: descriptors of one byte a component know no more."""
_SHARE_DIGITS = 9
"""Of a share: one object of a selection of many millions is not nothing."""

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of k clusters, in their order, and of the n positions of the selection."""

    cohesion: Floats
    """Mean cosine of the members to the centre, the mean of their directions. Shape (k,)."""
    weakest_link: Floats
    """Least similarity of a link in the cluster's spanning tree, on the scale of the request; NaN where no
    link holds it together. Shape (k,)."""
    weakest_a: Positions
    """Position of that link's older end; -1 without one. Shape (k,)."""
    weakest_b: Positions
    bridges: npt.NDArray[np.int32]
    """Links of the tree that are close to the threshold, with enough objects on either side. Shape (k,)."""
    share: npt.NDArray[np.float64]
    """Of the selection. Shape (k,)."""
    centrality: Floats
    """Cosine of each position's object to the centre of its cluster. Shape (n,)."""
    bridge_links: Links
    """The bridges, between positions, the weakest first."""
    sampled: npt.NDArray[np.bool_]
    """Clusters whose weakest link and bridges are of a sample of their links, see `Trees`. Shape (k,)."""

    def figures(self, clusters: slice | Positions) -> dict[str, list[Any]]:
        """Figures of some clusters as the archive has them, by name; None for no weakest link."""
        weakest = np.round(self.weakest_link[clusters].astype(np.float64), _DIGITS).astype(object)
        weakest[np.isnan(self.weakest_link[clusters])] = None
        return {
            "share": np.round(self.share[clusters], _SHARE_DIGITS).tolist(),
            "cohesion": np.round(self.cohesion[clusters].astype(np.float64), _DIGITS).tolist(),
            "weakest_link": weakest.tolist(),
            "bridges": self.bridges[clusters].tolist(),
        }


def measure_quality(
    view: PartitionView,
    selection: Selection,
    clusters: Clusters,
    forest: Links,
    *,
    threshold: Threshold,
    settings: ChainingSettings,
    interrupt: Interrupt,
) -> Quality:
    """Figures of a snapshot's clusters.

    Args:
        forest: spanning forest of the links of the selection above the threshold at least, by position.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    found = spanning_trees(view, selection, clusters, forest, cosine=threshold.cosine, interrupt=interrupt)
    trees = found.links
    weakest, a, b = _weakest(clusters, trees)
    bridges = _bridges(clusters, trees, threshold.cosine, settings, interrupt)
    cohesion, centrality = _to_centres(view, selection, clusters, interrupt)
    known = ~np.isnan(weakest)
    weakest[known] = threshold.scale.to_scale(weakest[known])
    return Quality(
        cohesion=cohesion,
        weakest_link=weakest,
        weakest_a=a,
        weakest_b=b,
        bridges=np.bincount(clusters.numbers[bridges.a], minlength=len(clusters)).astype(np.int32),
        share=clusters.sizes / max(1, len(selection)),
        centrality=centrality,
        bridge_links=bridges,
        sampled=found.sampled,
    )


def _weakest(clusters: Clusters, trees: Links) -> tuple[Floats, Positions, Positions]:
    """Cosine and ends of each cluster's weakest link."""
    count = len(clusters)
    cosine = np.full(count, np.nan, np.float32)
    a, b = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    real = only(trees, trees.similarity < OF_A_TRACK)
    cluster = clusters.numbers[real.a]
    # One sort of one key: links are in the order of their ends, which so decide between equal ones.
    keys = cluster.astype(np.uint64) << np.uint64(32)
    keys |= np.invert(descending_bits(real.similarity))
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    at = order[first]
    cosine[cluster[at]], a[cluster[at]], b[cluster[at]] = real.similarity[at], real.a[at], real.b[at]
    return cosine, a, b


def _bridges(
    clusters: Clusters, trees: Links, cosine: float, settings: ChainingSettings, interrupt: Interrupt
) -> Links:
    """Bridges of all clusters, the weakest first."""
    close = trees.similarity <= np.float32(cosine + settings.bridge_margin)
    of_interest = np.zeros(len(clusters), bool)
    of_interest[clusters.numbers[trees.a[close]]] = True
    of_interest &= clusters.sizes >= 2 * settings.bridge_objects
    inside = of_interest[clusters.numbers[trees.a]]
    some = only(trees, inside)
    rows = np.unique(np.concatenate((some.a, some.b)))
    compact = Links(
        np.searchsorted(rows, some.a).astype(np.uint32),
        np.searchsorted(rows, some.b).astype(np.uint32),
        some.similarity,
    )
    sides = smaller_sides(len(rows), compact, interrupt)
    found = only(some, close[inside] & (sides >= settings.bridge_objects))
    order = np.lexsort((found.b, found.a, found.similarity))
    return Links(found.a[order], found.b[order], found.similarity[order])


def _to_centres(
    view: PartitionView, selection: Selection, clusters: Clusters, interrupt: Interrupt
) -> tuple[Floats, Floats]:
    """Cohesion of each cluster, centrality of each position. One alone is its own centre."""
    cohesion = np.ones(len(clusters), np.float32)
    centrality = np.ones(len(selection), np.float32)
    several = int((clusters.sizes > 1).sum())
    codes = OrderedCodes(view, selection, clusters.order[: clusters.starts[several]])
    for first, last in _runs(clusters, several):
        interrupt.check()
        begin, end = int(clusters.starts[first]), int(clusters.starts[last])
        sizes = clusters.sizes[first:last]
        if end - begin <= _BLOCK_ROWS:
            some = _Directions.of(codes.between(begin, end))
            lengths, centres = _centres(some.sums(sizes))
            centrality[clusters.order[begin:end]] = some.cosines(np.repeat(centres, sizes, axis=0))
        else:  # one cluster that is larger than a block, so it is gone through twice
            total = np.zeros((1, selection.space.dim), np.float32)
            for at, until in _blocks(begin, end):
                total += _Directions.of(codes.between(at, until)).sums(np.array([until - at]))
                interrupt.check()
            lengths, centres = _centres(total)
            for at, until in _blocks(begin, end):
                some = _Directions.of(codes.between(at, until))
                centrality[clusters.order[at:until]] = some.cosines(centres)
                interrupt.check()
        # The mean cosine to the mean direction is the length of the mean.
        cohesion[first:last] = np.minimum(lengths / sizes, 1.0)
    return cohesion, np.minimum(centrality, np.float32(1.0))


def _centres(sums: Floats) -> tuple[Floats, Floats]:
    """Lengths of sums of directions, and the sums with a length of 1."""
    lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    return lengths, sums * (1 / np.maximum(lengths, np.float32(1e-12)))[:, None]


@dataclass(frozen=True, slots=True)
class _Directions:
    """Codes as directions, without a copy of length 1: most of the time goes into passes over memory."""

    codes: Floats
    """Shape (n, dim)."""
    inverse_norms: Floats
    """Shape (n,)."""

    @classmethod
    def of(cls, codes: Codes) -> _Directions:
        floats = codes.astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", floats, floats))
        return cls(floats, np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0))

    def sums(self, sizes: Positions) -> Floats:
        """Sums of the directions of consecutive runs of these sizes, shape (len(sizes), dim)."""
        # A sparse matrix adds up in order, ten times as fast as `np.add.reduceat`, and unlike a product of
        # dense ones gives the same bits whatever the threads.
        ends = np.append(0, np.cumsum(sizes))
        weights = (self.inverse_norms, np.arange(len(self.codes)), ends)
        sums: Floats = sparse.csr_array(weights, shape=(len(sizes), len(self.codes))) @ self.codes
        return sums

    def cosines(self, centres: Floats) -> Floats:
        """Cosine of each direction to its row of `centres`, or to the only one."""
        of_all = np.broadcast_to(centres, self.codes.shape)
        cosines: Floats = np.einsum("ij,ij->i", self.codes, of_all) * self.inverse_norms
        return cosines


def _runs(clusters: Clusters, count: int) -> Iterator[tuple[int, int]]:
    """The first clusters in runs [first, last) of a block at most; a larger one is a run of its own."""
    first = 0
    while first < count:
        full = clusters.starts[first] + _BLOCK_ROWS
        last = int(np.searchsorted(clusters.starts[: count + 1], full, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _blocks(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(begin, end, _BLOCK_ROWS):
        yield at, min(end, at + _BLOCK_ROWS)


def task_figures(clusters: Clusters, quality: Quality) -> dict[str, Any]:
    """Figures of a task: `largest_share`, `singletons`, and `sizes`, a histogram in classes that double."""
    classes = np.ceil(np.log2(clusters.sizes)).astype(np.int64)  # 1 | 2 | 3-4 | 5-8 | 9-16 …
    counts = np.bincount(classes).tolist()
    objects = np.bincount(classes, weights=clusters.sizes).astype(np.int64).tolist()
    return {
        "largest_share": round(float(quality.share[0]), _SHARE_DIGITS),
        "singletons": int((clusters.sizes == 1).sum()),
        "sizes": [
            {
                "at_least": 2 ** (number - 1) + 1 if number else 1,
                "at_most": 2**number,
                "clusters": count,
                "objects": held,
            }
            for number, (count, held) in enumerate(zip(counts, objects, strict=True))
        ],
    }


def chaining_warnings(
    selection: Selection, clusters: Clusters, quality: Quality, settings: ChainingSettings
) -> list[dict[str, Any]]:
    """Clusters that may be several, the largest first: each with a code, a message, and objects at fault."""
    # A small selection has large shares without anything being wrong.
    large = (quality.share > settings.largest_share) & (clusters.sizes >= 4 * settings.bridge_objects)
    suspects = np.flatnonzero(large | (quality.bridges > 0))[:_MOST_NAMED]
    return [
        _warning(selection, clusters, quality, cluster, is_large=bool(large[cluster]))
        for cluster in suspects.tolist()
    ]


def _warning(
    selection: Selection, clusters: Clusters, quality: Quality, cluster: int, *, is_large: bool
) -> dict[str, Any]:
    links = quality.bridge_links
    mine = np.flatnonzero(clusters.numbers[links.a] == cluster)
    ends = [position for index in mine.tolist() for position in (links.a[index], links.b[index])]
    objects = list(dict.fromkeys(selection.ids[int(position)] for position in ends))[:_MOST_NAMED]
    size, share = int(clusters.sizes[cluster]), float(quality.share[cluster])
    message = f"cluster {cluster} holds {size:,} objects, {share:.1%} of the selection"
    pair: list[str] = []
    if len(mine):
        what = "one link holds" if len(mine) == 1 else f"{len(mine):,} links hold"
        message += (
            f"; {what} large parts of it together just above the threshold, so it may be several "
            "clusters that chain"
        )
        pair = [selection.ids[int(ends[0])], selection.ids[int(ends[1])]]
        message += f"; the weakest is between {pair[0]} and {pair[1]}"
    return {
        "code": "large_cluster" if is_large else "bridges",
        "message": message,
        "cluster": cluster,
        "id": selection.ids[int(clusters.members(cluster)[0])],
        "size": size,
        "share": round(share, 4),
        "bridges": len(mine),
        "pair": pair,
        "objects": objects,
    }
