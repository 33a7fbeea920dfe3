"""The spanning tree of each cluster over its own links, also where clusters are parts of components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import connected_components, track_pairs
from stream_cluster.graph.forest import ForestBuilder, maximum_spanning_forest
from stream_cluster.matching import CodeStore, all_pairs, scan
from stream_cluster.model import Interrupt, Links, concatenate_links
from stream_cluster.snapshot.clusters import Clusters
from stream_cluster.snapshot.ordered_codes import OrderedCodes
from stream_cluster.snapshot.selection import Selection
from stream_cluster.state.view import PartitionView

OF_A_TRACK = np.float32(2.0)
"""Stands for the similarity of two objects of one track: above all others."""
_BLOCK_ROWS = 1024
"""Objects of small clusters that are compared in one go, across clusters too: to the kernel these pairs cost
less than a call for each cluster."""
_QUERY_ROWS = 8192
_STORE_ROWS = 32_768
_MOST_PAIRS = 4_000_000_000
"""Pairs of objects of clusters larger than a block that are compared: for about ten seconds."""
_MOST_LINKS = 50_000_000
"""Links among them that are looked at: for about ten seconds."""

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trees:
    """Spanning trees of k clusters."""

    links: Links
    """Links between positions, those of a cluster sorted by (a, b); two objects of a track that hang together
    by it have `OF_A_TRACK`. Of a cluster that its links do not hold together, the trees of its parts."""
    sampled: npt.NDArray[np.bool_]
    """Clusters too large to compare all that had to be: their trees are of the links of a sample of the
    objects, which may be weaker than those left out, and may not hold all of it together. Shape (k,)."""


def spanning_trees(
    view: PartitionView,
    selection: Selection,
    clusters: Clusters,
    forest: Links,
    *,
    cosine: float,
    interrupt: Interrupt,
) -> Trees:
    """The maximum spanning tree of each cluster over its own links above a cosine, and its tracks.

    Args:
        forest: spanning forest of the links of the selection above `cosine` at least, by position.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    tracks = None
    links = forest.above(cosine)
    if selection.tracks is not None:
        # By cluster, too: the next object of a track that is in the cluster may not be the next of the track.
        inside = selection.tracks * len(clusters) + clusters.numbers
        a, b = track_pairs(np.where(selection.tracks >= 0, inside, -1))
        tracks = Links(a, b, np.full(len(a), OF_A_TRACK))
        links = maximum_spanning_forest(concatenate_links([links, tracks]))
    links = _inside(links, clusters)
    found = np.bincount(clusters.numbers[links.a], minlength=len(clusters))
    lacking = found < clusters.sizes - 1
    sampled = np.zeros(len(clusters), np.bool_)
    if not lacking.any():
        return Trees(links, sampled)
    # Clusters that are parts of components: the paths of the forest may run outside of them.
    of_lacking = ForestBuilder()
    if tracks is not None:
        of_lacking.add(only(tracks, lacking[clusters.numbers[tracks.a]]))
    search = _Search(view, selection, clusters, cosine, interrupt, sampled)
    is_large = clusters.sizes > _BLOCK_ROWS
    for some in search.of_small(np.flatnonzero(lacking & ~is_large)):
        of_lacking.add(some)
    for some in search.of_large(np.flatnonzero(lacking & is_large), links):
        of_lacking.add(some)
    whole = only(links, ~lacking[clusters.numbers[links.a]])
    return Trees(concatenate_links([whole, of_lacking.result()]), sampled)


def only(links: Links, keep: npt.NDArray[np.bool_]) -> Links:
    """Some of the links. `keep`: shape (len(links),)."""
    return Links(links.a[keep], links.b[keep], links.similarity[keep])


def _inside(links: Links, clusters: Clusters) -> Links:
    return only(links, clusters.numbers[links.a] == clusters.numbers[links.b])


def _between(positions: Positions, links: Links) -> Links:
    """Links of a block, with the positions that its rows stand for; a < b as everywhere."""
    a, b = positions[links.a].astype(np.uint32), positions[links.b].astype(np.uint32)
    return Links(np.minimum(a, b), np.maximum(a, b), links.similarity)


def _block_ends(sizes: Positions) -> Iterator[int]:
    """Where blocks of whole clusters end, of up to `_BLOCK_ROWS` objects."""
    begin = end = 0
    for size in sizes.tolist():
        if end > begin and end + size - begin > _BLOCK_ROWS:
            yield end
            begin = end
        end += size
    yield end


@dataclass(frozen=True, slots=True)
class _Search:
    """Finds the links of clusters that the forest does not hold together."""

    view: PartitionView
    selection: Selection
    clusters: Clusters
    cosine: float
    interrupt: Interrupt
    sampled: npt.NDArray[np.bool_]
    """Set for each cluster of which not all is compared."""

    def of_small(self, numbers: Positions) -> Iterator[Links]:
        """All links inside each of some clusters, which are compared several at a time."""
        if not len(numbers):
            return
        positions = np.concatenate([self.clusters.members(number) for number in numbers.tolist()])
        codes = OrderedCodes(self.view, self.selection, positions)
        begin = 0
        for end in _block_ends(self.clusters.sizes[numbers]):
            for some in all_pairs(codes.between(begin, end), self.cosine, interrupt=self.interrupt):
                yield _inside(_between(positions[begin:end], some), self.clusters)
            begin = end

    def of_large(self, numbers: Positions, inside: Links) -> Iterator[Links]:
        """Those of the forest in some clusters, and all between the parts that these hold together.

        What the forest has inside of a cluster is part of the cluster's tree: a link that is the strongest
        between two sides of a graph is so between those of any part of it. So only what is between the parts
        is missing, and objects of the largest part need not be compared with one another. A limit may end it.

        Args:
            inside: of all clusters, the links that the forest and tracks have in them.
        """
        all_parts = connected_components(len(self.clusters.numbers), [(inside.a, inside.b)], self.interrupt)
        of_large = np.zeros(len(self.clusters), np.bool_)
        of_large[numbers] = True
        yield only(inside, of_large[self.clusters.numbers[inside.a]])
        work = [(number, *self._asked(number, all_parts)) for number in numbers.tolist()]
        pairs = sum(len(asked) * len(part) for _, asked, part in work)
        share = min(1.0, _MOST_PAIRS / max(1, pairs))
        left = _MOST_LINKS
        for number, asked, part in work:
            some = asked[: int(np.ceil(share * len(asked)))]
            self.sampled[number] = len(some) < len(asked)
            for found in self._compared(number, some, part):
                left -= len(found)
                if left < 0:
                    self.sampled[number] = True
                    break
                yield found

    def _asked(self, number: int, all_parts: npt.NDArray[np.int32]) -> tuple[Positions, Positions]:
        """Which members of a cluster are compared with all of it, and the part of each member.

        The first object of each part comes first, then the second of each: whatever a limit leaves of them is
        spread over the parts.
        """
        members = self.clusters.members(number)
        part = np.unique(all_parts[members], return_inverse=True)[1].astype(np.int64)
        sizes = np.bincount(part)
        by_part = np.argsort(part, kind="stable")
        rank = np.empty(len(members), np.int64)
        rank[by_part] = np.arange(len(members)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        is_asked = part != np.argmax(sizes)
        if self.selection.low is not None:
            is_asked |= self.selection.low[members]  # the forest has no links of these
        asked = np.flatnonzero(is_asked)
        return asked[np.argsort(rank[asked], kind="stable")], part

    def _compared(self, number: int, asked: Positions, part: Positions) -> Iterator[Links]:
        """Links between some members of a cluster and those of other parts."""
        space, rows = self.selection.space, self.selection.rows
        members = self.clusters.members(number)
        low = None if self.selection.low is None else self.selection.low[members]
        for begin in range(0, len(asked), _QUERY_ROWS):
            some = asked[begin : begin + _QUERY_ROWS]
            queries = self.view.codes(space, rows[members[some]])
            # Members are in the order of the state: each is read once.
            for first in range(0, len(members), _STORE_ROWS):
                store = CodeStore(space.dim)
                store.append(self.view.codes(space, rows[members[first : first + _STORE_ROWS]]), learn=False)
                for hits in scan(store, queries, self.cosine, interrupt=self.interrupt):
                    a, b = some[hits.query], hits.row.astype(np.int64) + first
                    keep = part[a] != part[b]
                    if low is not None:
                        keep |= (low[a] | low[b]) & (a != b)
                    yield _between(members, Links(a[keep], b[keep], hits.similarity[keep]))
