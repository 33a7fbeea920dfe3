"""A snapshot from beginning to end: select, cluster, number, write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_cluster import __version__
from stream_cluster.faults import fault_point
from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.model import Interrupt, Links, Progress
from stream_cluster.snapshot.archive import ArchiveContent, ArchiveFile, write_archive
from stream_cluster.snapshot.clusters import (
    Clusters,
    labels_by_matching,
    labels_from_forest,
    links_of_positions,
    number_clusters,
)
from stream_cluster.snapshot.gate import Gate, attach_by_link
from stream_cluster.snapshot.linkage import labels_by_average
from stream_cluster.snapshot.quality import chaining_warnings, measure_quality, task_figures
from stream_cluster.snapshot.rematch import Matching
from stream_cluster.snapshot.request import ClusteringRequest, select_requested
from stream_cluster.snapshot.selection import Selection, count_without_descriptor
from stream_cluster.snapshot.threshold import Threshold, threshold_on
from stream_cluster.snapshot.thresholds import curve_of, drawn, lowest_to_match
from stream_cluster.state.gaps import gaps_of
from stream_cluster.state.view import PartitionView

ARCHIVE_FORMAT = 1
_EXACT: Mapping[str, Any] = {"engine": "exact", "recall": None}

# Share of the whole that each stage takes, about: (stage, begin, end).
_STAGES = {
    "select": (0.0, 0.1),
    "match": (0.1, 0.5),
    "linkage": (0.5, 0.6),
    "clusters": (0.6, 0.8),
    "report": (0.8, 0.9),
    "page": (0.9, 1.0),
}
_STAGES_WITH_IMAGES = {
    "select": (0.0, 0.05),
    "match": (0.05, 0.25),
    "linkage": (0.25, 0.3),
    "clusters": (0.3, 0.35),
    "report": (0.35, 0.4),
    "images": (0.4, 0.9),
    "page": (0.9, 1.0),
}


@dataclass(frozen=True, slots=True)
class SnapshotResult:
    """What a snapshot made."""

    archive: ArchiveFile
    objects: int
    clusters: int
    largest_cluster: int
    threshold: float
    """On the scale of the descriptor version."""
    as_of: Mapping[str, Any] | None
    """`topic`, `partition`, `next_offset` of the state that was read; None for files."""
    method: str
    """`forest` or `rematch`."""
    matching: Mapping[str, Any]
    """`engine` and `recall`, as the manifest has them."""
    timings_s: Mapping[str, float]
    """Seconds by stage. Not in the archive, whose bytes depend on the data alone."""
    warnings: Sequence[Mapping[str, Any]]
    """Those of the manifest."""


def run_snapshot(
    view: PartitionView,
    request: ClusteringRequest,
    target: Path,
    *,
    interrupt: Interrupt,
    progress: Progress,
    as_of: Mapping[str, Any] | None,
) -> SnapshotResult:
    """Cluster what the request selects in the view, and write the archive to `target`.

    Raises:
        TaskError: `empty_selection`, `deadline_exceeded`; `bad_request` for a threshold outside the scale.
        Cancelled: asked to stop; nothing is left behind.
        StateError: the state cannot be read.
        ResultsUnavailable: the archive cannot be written.
    """

    fault_point("snapshot")
    with view.stoppable(interrupt):
        return _run(view, request, target, interrupt=interrupt, progress=progress, as_of=as_of)


def _run(
    view: PartitionView,
    request: ClusteringRequest,
    target: Path,
    *,
    interrupt: Interrupt,
    progress: Progress,
    as_of: Mapping[str, Any] | None,
) -> SnapshotResult:
    stages = _STAGES if request.images is None else _STAGES_WITH_IMAGES

    def overall(stage: str, share: float) -> None:
        begin, end = stages[stage]
        progress(stage, begin + (end - begin) * share)

    timings_s: dict[str, float] = {}
    mark = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        timings_s[stage] = round(now - mark, 4)
        mark = now

    overall("select", 0.0)
    selection = select_requested(view, request, interrupt)
    lap("select")
    overall("match", 0.0)
    version = selection.space.key.version
    threshold = threshold_on(request.similarity, request.descriptor_type, version, request.threshold)
    clustering = _cluster(view, request, threshold, selection, interrupt=interrupt, progress=overall)
    clusters, method = clustering.clusters, clustering.method
    lap("cluster")
    quality = measure_quality(
        view,
        selection,
        clusters,
        clustering.forest,
        threshold=threshold,
        settings=request.chaining,
        interrupt=interrupt,
    )
    warnings = chaining_warnings(selection, clusters, quality, request.chaining)
    curve = None
    if request.page is not None:
        exact = curve_of(selection, clustering.forest, clustering.low_cosine, interrupt)
        curve = drawn(exact, threshold, len(selection))
    lap("quality")
    counts = _counts(view, selection, clustering)
    if quality.sampled.any():
        counts["clusters_sampled"] = int(quality.sampled.sum())
    content = ArchiveContent(
        view=view,
        selection=selection,
        clusters=clusters,
        columns=request.columns,
        id_column=request.id_column,
        images=request.images,
        page=request.page,
        quality=quality,
        components=clustering.components,
        curve=curve,
        warnings=warnings,
        manifest={
            **_manifest(
                request,
                selection,
                threshold,
                clustering,
                as_of=as_of,
                counts=counts,
                figures=task_figures(clusters, quality),
                warnings=warnings,
            ),
            **gaps_of(view.meta),
        },
    )
    archive = write_archive(target, content, interrupt=interrupt, progress=overall)
    lap("write")
    return SnapshotResult(
        archive=archive,
        objects=len(selection),
        clusters=len(clusters),
        largest_cluster=int(clusters.sizes[0]),
        threshold=threshold.value,
        as_of=as_of,
        method=method,
        matching=clustering.matching,
        timings_s=timings_s,
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True)
class _Clustering:
    clusters: Clusters
    components: Clusters | None
    """Of average linkage: the connected components at the same threshold."""
    method: str
    matching: Mapping[str, Any]
    """Engine that found the links, and its recall; None where all links were found."""
    forest: Links
    """Spanning forest of the links of positions above `low_cosine`."""
    low_cosine: float
    merges_prevented: int | None = None
    """Of average linkage: see `AverageLabels`."""


def _cluster(
    view: PartitionView,
    request: ClusteringRequest,
    threshold: Threshold,
    selection: Selection,
    *,
    interrupt: Interrupt,
    progress: Progress,
) -> _Clustering:
    cosine = threshold.cosine
    gate = None
    if selection.low is not None and selection.low.any():
        gate = Gate.of(selection.low, selection.tracks)
    forest = ForestBuilder()
    low = lowest_to_match(request, selection, cosine)
    # Paths of the forest may run through objects that are to form no group.
    from_forest = gate is None and selection.is_whole_space and cosine >= selection.space.floor_cosine
    method = "forest" if from_forest else "rematch"
    components = prevented = None
    facts = _EXACT
    if request.linkage == "average":
        found = labels_by_average(
            view,
            selection,
            cosine,
            gate,
            from_forest=from_forest,
            interrupt=interrupt,
            progress=progress,
            forest=forest,
            low_cosine=low,
        )
        labels, components = found.labels, number_clusters(found.components)
        prevented = found.merges_prevented
        if from_forest:
            facts = view.matching(selection.space.space_id)
    elif from_forest:
        labels = labels_from_forest(view, selection, cosine)
        facts = view.matching(selection.space.space_id)
    else:
        codes = view.codes(selection.space, selection.rows)
        passing = None if gate is None else gate.passing()
        matching = Matching(codes, low, request.rematch, interrupt, progress, passing=passing)
        labels = labels_by_matching(matching, selection, cosine, forest=forest)
        facts = matching.facts
        if gate is not None:
            labels = attach_by_link(codes, labels, gate, cosine, interrupt)
    interrupt.check()
    if from_forest:
        low = selection.space.floor_cosine
        forest.add(links_of_positions(view, selection, low))
    return _Clustering(number_clusters(labels), components, method, facts, forest.result(), low, prevented)


def _counts(view: PartitionView, selection: Selection, clustering: _Clustering) -> dict[str, Any]:
    """Counts that reconcile; with average linkage also what connected components would have given.

    objects_received = duplicates + deleted + objects; objects = filtered_out + selected; filtered_out = the
    sum of removed_by_filter; selected = the sum of all cluster sizes.
    """
    space, clusters = selection.space, clustering.clusters
    rejected = sum(
        records
        for (result, _), records in view.counters(space.key.account_id).items()
        if result == "rejected"
    )
    counts = {
        "objects_received": space.duplicates + space.deleted + selection.in_space,
        "duplicates": space.duplicates,
        "deleted": space.deleted,
        "objects": selection.in_space,
        "filtered_out": selection.in_space - len(selection),
        "removed_by_filter": selection.removed_by_filter,
        "dated_after_the_task": selection.dated_after_the_task,
        "selected": len(selection),
        "clusters": len(clusters),
        "singletons": int((clusters.sizes == 1).sum()),
        "largest_cluster": int(clusters.sizes[0]),
        "records_rejected": rejected,
        "without_descriptor": count_without_descriptor(view, space),
    }
    if selection.low is not None:
        counts["low_quality"] = _low_quality(selection.low, clusters)
    if selection.apart is not None:
        counts["cannot_link"] = {
            "objects": len(selection.apart),
            "frames": len(np.unique(selection.apart.frames)),
            "merges_prevented": clustering.merges_prevented,
        }
    if (components := clustering.components) is not None:
        counts["components"] = {
            "clusters": len(components),
            "largest_cluster": int(components.sizes[0]),
        }
    return counts


def _low_quality(low: npt.NDArray[np.bool_], clusters: Clusters) -> dict[str, int]:
    """Objects of low quality, and how many of them are in a cluster with others that are not."""
    others = np.bincount(clusters.numbers[~low], minlength=len(clusters))
    attached = int(np.count_nonzero(others[clusters.numbers[low]]))
    objects = int(np.count_nonzero(low))
    return {"objects": objects, "attached": attached, "unattached": objects - attached}


def _manifest(
    request: ClusteringRequest,
    selection: Selection,
    threshold: Threshold,
    clustering: _Clustering,
    *,
    as_of: Mapping[str, Any] | None,
    counts: Mapping[str, Any],
    figures: Mapping[str, Any],
    warnings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """manifest.json: everything that determines the result."""
    space = selection.space
    return {
        "format": ARCHIVE_FORMAT,
        "software": {"name": "stream-cluster", "version": __version__},
        "task_id": request.task_id,
        "account_id": request.account_id,
        "description": request.description,
        "request": request.content,
        "parameters": {
            "object_type": request.object_type,
            "descriptor_type": space.key.descriptor_type,
            "descriptor_version": space.key.version,
            "dimension": space.dim,
            "threshold": threshold.value,
            "threshold_cosine": threshold.cosine,
            "similarity": threshold.scale.parameters,
            "linkage": request.linkage,
            "min_quality": request.min_quality,
            "cannot_link": request.cannot_link,
            "use_track_info": request.use_track_info,
            "save_images": request.images is not None,
            "columns": [column.name for column in request.columns],
        },
        "method": clustering.method,
        "matching": clustering.matching,
        "as_of": as_of,
        "counts": counts,
        "figures": figures,
        "warnings": warnings,
    }
