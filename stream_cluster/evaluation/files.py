"""Evaluation from file to figures: of an archive, or of thresholds over the descriptors in a file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stream_cluster.config import Settings
from stream_cluster.evaluation.archive import read_archive
from stream_cluster.evaluation.measures import Quality, measure
from stream_cluster.evaluation.mistakes import Mistake, worst_merges, worst_splits
from stream_cluster.evaluation.sweep import Point, cuts
from stream_cluster.evaluation.truth import Truth, match
from stream_cluster.messages import TaskRequest
from stream_cluster.model import Interrupt, Linkage, Progress
from stream_cluster.offline.load import LoadReport, VectorRules
from stream_cluster.offline.run import loaded_files
from stream_cluster.offline.sources import Source
from stream_cluster.snapshot.request import find_space, resolve_request
from stream_cluster.snapshot.selection import select
from stream_cluster.snapshot.threshold import threshold_on


@dataclass(frozen=True, slots=True)
class ArchiveEvaluation:
    """How good the clusters of an archive are."""

    parameters: Mapping[str, Any]
    """Of the manifest."""
    counts: Mapping[str, int]
    """`objects` of the archive, and `Labelled.counts`."""
    quality: Quality
    ids: list[str]
    """Ids that the examples of the mistakes are positions in: those of the evaluated objects."""
    labels: list[str]
    """Labels that people are numbers of."""
    merges: list[Mistake]
    splits: list[Mistake]


def evaluate_archive(
    path: Path, truth: Truth, worst: int, interrupt: Interrupt, progress: Progress
) -> ArchiveEvaluation:
    """Compare the clusters of an archive with the truth, over the objects that are in both.

    `worst`: so many merges and splits at most.

    Raises:
        InputError: the archive cannot be used, or none of its objects has a label.
        Cancelled: asked to stop.
    """
    archive = read_archive(path, interrupt, progress)
    labelled = match(truth, archive.ids, str(path))
    clusters = archive.clusters[labelled.positions]
    return ArchiveEvaluation(
        parameters=archive.parameters,
        counts={"objects": len(archive.ids), **labelled.counts},
        quality=measure(clusters, labelled.people),
        ids=[archive.ids[position] for position in labelled.positions.tolist()],
        labels=truth.labels,
        merges=worst_merges(clusters, labelled.people, worst),
        splits=worst_splits(clusters, labelled.people, worst),
    )


@dataclass(frozen=True, slots=True)
class SweepEvaluation:
    """How good the clusters of a file's objects are at each threshold."""

    space: Mapping[str, Any]
    """What was clustered: account, type and version of the descriptors, scale."""
    load: LoadReport
    counts: Mapping[str, int]
    """`objects` that were clustered, and `Labelled.counts`."""
    points: list[Point]
    """By linkage in the order asked for, then by threshold."""


def sweep_file(
    source: Source,
    truth: Truth,
    task: TaskRequest,
    settings: Settings,
    *,
    thresholds: Sequence[float],
    linkages: Sequence[Linkage],
    account_id: str | None,
    vector_version: int,
    interrupt: Interrupt,
    progress: Progress,
) -> SweepEvaluation:
    """Cluster all objects of a file as the task says but for its threshold and linkage, and measure each cut.

    All objects are clustered; those with a label are measured.

    Args:
        task: its `account_id`, threshold and linkage are not used.
        thresholds: on the scale of the version that is clustered.
        account_id, vector_version: see `stream_cluster.offline.run.cluster_files`.
        progress: told of the stages `read`, `match` and `cut`.

    Raises:
        InputError: the file cannot be used, or none of its objects has a label.
        TaskError: the task asks for what is not there, or a threshold is outside the scale.
        Cancelled: asked to stop.
    """
    request = resolve_request(task, settings, time.time_ns() // 1000)
    rules = VectorRules(request.object_type, request.descriptor_type, vector_version)
    with loaded_files(
        [source], settings, rules, account_id=account_id, interrupt=interrupt, progress=progress
    ) as loaded:
        space = find_space(loaded.view, replace(request, account_id=loaded.account_id))
        on_scale = [
            threshold_on(request.similarity, request.descriptor_type, space.key.version, value)
            for value in thresholds
        ]
        selection = select(loaded.view, space, [], with_tracks=False, interrupt=interrupt)
        labelled = match(truth, selection.ids, source.name)
        codes = loaded.view.codes(space, selection.rows)
    points = [
        Point(
            cut.linkage,
            on_scale[cut.place].value,
            on_scale[cut.place].cosine,
            measure(cut.labels[labelled.positions], labelled.people),
        )
        for cut in cuts(
            codes, [one.cosine for one in on_scale], linkages, interrupt=interrupt, progress=progress
        )
    ]
    return SweepEvaluation(
        space={
            "account_id": loaded.account_id,
            "object_type": request.object_type,
            "descriptor_type": space.key.descriptor_type,
            "descriptor_version": space.key.version,
            "similarity": on_scale[0].scale.parameters,
        },
        load=loaded.report,
        counts={"objects": len(selection), **labelled.counts},
        points=points,
    )
