"""Which clusters and which members the page lists, and their columns as JSON.

What is listed is bounded by bytes: as many clusters as fit, the largest first, and of each as many members as
all can have alike. Members are in blocks that the page reads when it needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from stream_cluster.model import Interrupt
from stream_cluster.snapshot.clusters import Clusters
from stream_cluster.snapshot.paths import safe_name
from stream_cluster.snapshot.report.facts import UNKNOWN_TIME, Facts
from stream_cluster.snapshot.report.merged import Merged
from stream_cluster.snapshot.report.text import shortened
from stream_cluster.snapshot.selection import PackedStrings

if TYPE_CHECKING:
    from stream_cluster.snapshot.quality import Quality

Positions = npt.NDArray[np.int64]

TracksOf = Callable[[Positions], list[str | None]]
"""Tracks of positions, in their order."""

_BLOCK_MEMBERS = 2048
# Of the columns of a cluster as JSON, about: what fits is guessed first, and counted when it is made.
_CLUSTER_BYTES = 60
_SOURCE_BYTES = 4
_SAMPLE = 2000
# So many members of each cluster, if it has them, come before more clusters.
_FEW_MEMBERS = 4
# What a guess leaves free, so that it is seldom too much.
_GUESS = 0.95


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed of clusters 0..k-1, the first ones."""

    members: Positions
    """Positions of the listed members, cluster after cluster, each from its oldest. The first of a cluster is
    its oldest member."""
    starts: Positions
    """Cluster c has members[starts[c]:starts[c + 1]]. Shape (k + 1,)."""
    cover: Positions
    """The object that stands for each cluster: index into its listed members. Shape (k,)."""

    def __len__(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True, slots=True)
class Shown:
    """What is to be shown."""

    ids: PackedStrings
    clusters: Clusters
    quality: Quality
    facts: Facts
    extensions: Sequence[str]
    """Extensions of images; `image` is an index into them."""
    image: npt.NDArray[np.int8]
    """Which extension the saved image of each position has; -1 for none. Shape (n,)."""
    low: npt.NDArray[np.bool_] | None = None
    """Whether each position is below the quality that the task asks for; None when it asks for none."""
    merged: Merged | None = None
    """What connected components would have merged; None when these are the clusters."""


def choose_listing(shown: Shown, most_members: int, budget_bytes: int, tracks_of: TracksOf) -> Listing:
    """List as much as about fits.

    Args:
        most_members: of one cluster.
        budget_bytes: of the columns as JSON.
        tracks_of: tracks of positions.
    """
    sizes = shown.clusters.sizes
    if not len(sizes):
        nothing = np.empty(0, np.int64)
        return Listing(nothing, np.zeros(1, np.int64), nothing)
    budget = budget_bytes * _GUESS
    sample = np.arange(0, len(shown.ids), max(1, len(shown.ids) // _SAMPLE))
    member_bytes = len(encode(_member_columns(shown, sample, tracks_of(sample), 0))) / len(sample)
    source_counts, _ = _sources(shown, len(sizes))
    cluster_bytes = np.cumsum(_CLUSTER_BYTES + _SOURCE_BYTES * source_counts)
    few = np.minimum(sizes, min(_FEW_MEMBERS, most_members))
    needed = cluster_bytes + member_bytes * np.cumsum(few)
    count = max(1, int(np.searchsorted(needed, budget, side="right")))
    most = _even_share(sizes[:count], int((budget - cluster_bytes[count - 1]) / member_bytes), most_members)
    members, counts = _members(shown, count, most)
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return Listing(members, starts, _index_of(members, starts, _covers(shown)[:count]))


def _members(shown: Shown, count: int, most: int) -> tuple[Positions, Positions]:
    """Listed members of the first clusters, and how many each has.

    Of a cluster with more than `most` that are that many, evenly over their ages, with the oldest, the cover
    and the ends of the weakest link among them, so it may be a few more.
    """
    clusters, quality = shown.clusters, shown.quality
    sizes = clusters.sizes[:count]
    # The largest come first, so those that are listed whole are one run of the order.
    large = int((sizes > most).sum())
    begins = clusters.starts[:large, None]
    steps = np.arange(most) * (sizes[:large, None] - 1) // max(1, most - 1)
    always = np.stack((_covers(shown)[:large], quality.weakest_a[:large], quality.weakest_b[:large]), axis=1)
    oldest = clusters.order[begins]
    chosen = np.concatenate((clusters.order[begins + steps], np.where(always < 0, oldest, always)), axis=1)
    chosen.sort(axis=1)  # positions are in order of age
    is_new = np.ones(chosen.shape, bool)
    is_new[:, 1:] = chosen[:, 1:] != chosen[:, :-1]
    whole = clusters.order[clusters.starts[large] : clusters.starts[count]]
    members = np.concatenate((chosen[is_new], whole)).astype(np.int64)
    return members, np.concatenate((is_new.sum(axis=1), sizes[large:]))


def _even_share(sizes: Positions, total: int, most: int) -> int:
    """The largest number, up to `most`, with min(size, number) of all clusters adding up to `total`."""
    low, high = 1, max(1, most)
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(sizes, middle).sum()) <= total:
            low = middle
        else:
            high = middle - 1
    return low


def _covers(shown: Shown) -> Positions:
    """Position that stands for each cluster: with an image, of the highest quality, closest to the centre."""
    quality = np.nan_to_num(shown.facts.quality, nan=-np.inf)
    order = np.lexsort(
        (
            np.arange(len(quality)),
            -shown.quality.centrality,
            -quality,
            shown.image < 0,
            shown.clusters.numbers,
        )
    )
    covers: Positions = order[shown.clusters.starts[:-1]]
    return covers


def _index_of(members: Positions, starts: Positions, wanted: Positions) -> Positions:
    """Index of one position of each cluster within its listed members; -1 where it is -1."""
    index = np.full(len(wanted), -1, np.int64)
    there = np.flatnonzero(wanted >= 0)
    cluster = np.repeat(np.arange(len(wanted)), np.diff(starts))
    hits = np.flatnonzero(members == wanted[cluster])
    index[cluster[hits]] = hits - starts[cluster[hits]]
    assert (index[there] >= 0).all()
    return index


def cluster_columns(shown: Shown, listing: Listing, base_us: int) -> bytes:
    """Columns of the listed clusters as JSON: times in milliseconds after `base_us`, cosines in 10,000ths."""
    count, clusters = len(listing), shown.clusters
    first, last = _time_spans(shown, count)
    source_counts, sources = _sources(shown, count)
    quality = shown.quality
    columns = {
        "size": clusters.sizes[:count].tolist(),
        "listed": np.diff(listing.starts).tolist(),
        "cover": listing.cover.tolist(),
        "cohesion": _parts(quality.cohesion[:count]),
        "weakest": _parts(quality.weakest_link[:count]),
        "a": _index_of(listing.members, listing.starts, quality.weakest_a[:count]).tolist(),
        "b": _index_of(listing.members, listing.starts, quality.weakest_b[:count]).tolist(),
        "bridges": quality.bridges[:count].tolist(),
        "first": _times(first, base_us),
        "last": _times(last, base_us),
        "sourceCounts": source_counts.tolist(),
        "sources": sources.tolist(),
    }
    if shown.low is not None:
        columns["low"] = np.bincount(clusters.numbers[shown.low], minlength=count)[:count].tolist()
    if shown.merged is not None:
        component = shown.merged.component[:count]
        known = int(component.max(initial=-1)) + 1
        columns["component"] = component.tolist()
        columns["componentClusters"] = shown.merged.clusters[:known].tolist()
        columns["componentObjects"] = shown.merged.objects[:known].tolist()
    return encode(columns)


def _parts(values: npt.NDArray[np.float32]) -> list[int | None]:
    """10,000ths; NaN is null."""
    rounded = np.rint(values.astype(np.float64) * 10_000)
    return [None if value != value else int(value) for value in rounded.tolist()]  # noqa: PLR0124 - NaN


def _times(times_us: Positions, base_us: int) -> list[int | None]:
    known = times_us != UNKNOWN_TIME
    milliseconds = np.where(known, (times_us - base_us) // 1000, 0)
    return [
        value if is_known else None
        for value, is_known in zip(milliseconds.tolist(), known.tolist(), strict=True)
    ]


def _time_spans(shown: Shown, count: int) -> tuple[Positions, Positions]:
    """Earliest and latest time of each of the first clusters; UNKNOWN_TIME where no member has one."""
    clusters, times = shown.clusters, shown.facts.time_us
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    ordered = times[clusters.order[: clusters.starts[count]]]
    begins = clusters.starts[:count]
    latest = np.maximum.reduceat(ordered, begins)
    earliest = np.minimum.reduceat(np.where(ordered == UNKNOWN_TIME, np.iinfo(np.int64).max, ordered), begins)
    return np.where(latest == UNKNOWN_TIME, UNKNOWN_TIME, earliest), latest


def _sources(shown: Shown, count: int) -> tuple[Positions, Positions]:
    """How many sources each of the first clusters has, and their numbers, cluster after cluster."""
    cluster, source = shown.clusters.numbers.astype(np.int64), shown.facts.source.astype(np.int64)
    keep = (cluster < count) & (source >= 0)
    width = len(shown.facts.sources) + 1
    pairs = np.unique(cluster[keep] * width + source[keep])
    return np.bincount(pairs // width, minlength=count).astype(np.int64), pairs % width


def member_blocks(
    shown: Shown,
    listing: Listing,
    tracks_of: TracksOf,
    *,
    base_us: int,
    budget_bytes: int,
    interrupt: Interrupt,
) -> tuple[list[bytes], list[int]]:
    """Columns of the listed members as JSON, in blocks of whole clusters, as many as fit.

    Returns the blocks, and the number of the first cluster of each, with the end of the last.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    blocks: list[bytes] = []
    begins = [0]
    left = budget_bytes
    for end in _block_ends(listing):
        interrupt.check()
        at = listing.members[listing.starts[begins[-1]] : listing.starts[end]]
        block = encode(_member_columns(shown, at, tracks_of(at), base_us))
        left -= len(block)
        if left < 0 and blocks:
            break
        blocks.append(block)
        begins.append(end)
    return blocks, begins


def _block_ends(listing: Listing) -> list[int]:
    ends: list[int] = []
    begin = 0
    while begin < len(listing):
        full = listing.starts[begin] + _BLOCK_MEMBERS
        begin = max(begin + 1, int(np.searchsorted(listing.starts, full, side="right")) - 1)
        ends.append(begin)
    return ends


def _member_columns(
    shown: Shown, at: Positions, tracks: Sequence[str | None], base_us: int
) -> dict[str, Any]:
    """Columns of some members; one that says nothing is left out."""
    whole_ids = [shown.ids[position] for position in at.tolist()]
    ids = list(map(shortened, whole_ids))
    columns: dict[str, Any] = {"id": ids, "time": _times(shown.facts.time_us[at], base_us)}
    columns["source"] = shown.facts.source[at].tolist()
    numbers: dict[str, int] = {}
    columns["track"] = [
        -1 if track is None else numbers.setdefault(shortened(track), len(numbers)) for track in tracks
    ]
    columns["tracks"] = list(numbers)
    columns["central"] = _parts(shown.quality.centrality[at])
    if not np.isnan(shown.facts.quality[at]).all():
        columns["quality"] = _parts(shown.facts.quality[at])
    if shown.low is not None and shown.low[at].any():
        columns["low"] = shown.low[at].astype(int).tolist()
    image = shown.image[at]
    if (image >= 0).any():
        columns["image"] = image.tolist()
        # File names of ids that are no file names.
        names = {index: safe_name(whole_ids[index]) for index in np.flatnonzero(image >= 0).tolist()}
        columns["names"] = {str(index): name for index, name in names.items() if name != ids[index]}
    return columns


def without_rest(listing: Listing, clusters: int) -> Listing:
    """The listing of the first clusters alone."""
    starts = listing.starts[: clusters + 1]
    return Listing(listing.members[: starts[-1]], starts, listing.cover[:clusters])


def picture_order(shown: Shown, listing: Listing) -> Positions:
    """Listed members with images, as indices into `members`: covers, then weakest pairs, then the others."""
    starts = listing.starts[:-1]
    count = len(listing)
    pairs = [
        _index_of(listing.members, listing.starts, ends[:count])
        for ends in (shown.quality.weakest_a, shown.quality.weakest_b)
    ]
    rank = np.full(len(listing.members), 2, np.int64)
    for index in pairs:
        rank[(starts + index)[index >= 0]] = 1
    rank[starts + listing.cover] = 0
    order = np.argsort(rank, kind="stable")
    return order[shown.image[listing.members[order]] >= 0]


def encode(value: Any) -> bytes:
    """JSON that may stand in a script element: it holds no `<`, so it neither ends nor opens anything."""
    return msgspec.json.encode(value).replace(b"<", b"\\u003c")
