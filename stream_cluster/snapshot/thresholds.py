"""Clusters of a selection at every threshold: for the page of an archive, and to look at before a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_cluster.graph.components import track_pairs
from stream_cluster.graph.curve import ThresholdCurve, threshold_curve
from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.matching.scale import NO_PAIR, floor_cosine
from stream_cluster.model import Interrupt, Links, Progress
from stream_cluster.snapshot.clusters import links_of_positions
from stream_cluster.snapshot.rematch import Matching
from stream_cluster.snapshot.report.charts import Curve
from stream_cluster.snapshot.request import ClusteringRequest, select_requested
from stream_cluster.snapshot.selection import Selection
from stream_cluster.snapshot.threshold import Threshold, threshold_on
from stream_cluster.state.view import PartitionView

DRAWN_POINTS = 300
"""More cannot be told apart in a drawing."""


# Selections up to this size are matched from below the floor on, so that their curve shows what lies
# below the threshold.
_MATCHED_LOWER_OBJECTS = 20_000
_MATCHED_LOWER_COSINE = 0.1


def lowest_to_match(request: ClusteringRequest, selection: Selection, threshold_cosine: float) -> float:
    """Where the curve of a selection begins that is matched again: lower where that costs little."""
    if len(selection) > _MATCHED_LOWER_OBJECTS:
        return threshold_cosine
    floor = floor_cosine(request.similarity, selection.space.key)
    return max(-1.0, min(threshold_cosine, floor) - _MATCHED_LOWER_COSINE)


def curve_of(selection: Selection, forest: Links, low_cosine: float, interrupt: Interrupt) -> ThresholdCurve:
    """The exact curve of a selection, whose tracks are together if it has them.

    `forest`: spanning forest of positions, complete above `low_cosine`.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    return threshold_curve(
        len(selection),
        forest,
        low_cosine=low_cosine,
        together=None if selection.tracks is None else track_pairs(selection.tracks),
        interrupt=interrupt,
    )


def drawn(
    exact: ThresholdCurve, threshold: Threshold, objects: int, most_points: int = DRAWN_POINTS
) -> Curve:
    """The curve on the scale of a threshold, thinned as `ThresholdCurve.thinned` says.

    It stays exact at the threshold and at the cliff.
    """
    cliff = exact.cliff()
    marks = (threshold.cosine,) if cliff is None else (threshold.cosine, cliff)
    thin = exact.thinned(most_points, marks)
    return Curve(
        thresholds=threshold.scale.to_scale(thin.thresholds),
        clusters=thin.clusters,
        singletons=thin.singletons,
        largest=thin.largest,
        objects=objects,
        chosen=threshold.value,
        cliff=None if cliff is None else float(threshold.scale.to_scale(cliff)),
    )


@dataclass(frozen=True, slots=True)
class SelectionThresholds:
    """What a request would select, and its connected components at every threshold."""

    selection: Selection
    threshold: Threshold
    """That of the request, else the default of the version."""
    wanted: Sequence[Threshold]
    """Those that were named."""
    method: str
    """`forest` or `rematch`."""
    matching: Mapping[str, Any]
    """`engine` and `recall` of the links, as the manifest of a task has them."""
    exact: ThresholdCurve


def measure_thresholds(
    view: PartitionView,
    request: ClusteringRequest,
    wanted: Sequence[float],
    *,
    interrupt: Interrupt,
    progress: Progress,
) -> SelectionThresholds:
    """Connected components of what a request selects, at every threshold from the floor to 1.

    They come from the forest that the space has, unless objects are left out, no links were kept, or a
    threshold lies below the floor: then the objects are matched again, as for a task, from the lowest
    threshold on, or lower.

    Args:
        wanted: thresholds on the scale; the curve begins no higher than the lowest of them.
        progress: told of the stages `select`, `match` and `curve`.

    Raises:
        TaskError: `empty_selection`; `bad_request` for a threshold outside the scale.
        Cancelled: asked to stop.
        StateError: the state cannot be read.
    """
    progress("select", 0.0)
    with view.stoppable(interrupt):
        selection = select_requested(view, request, interrupt)
        space = selection.space
        version = space.key.version
        threshold, *others = (
            threshold_on(request.similarity, request.descriptor_type, version, value)
            for value in (request.threshold, *wanted)
        )
        floor = space.floor_cosine
        if floor >= NO_PAIR:  # nothing was linked as it came
            floor = floor_cosine(request.similarity, space.key)
        low = min(floor, *(one.cosine for one in (threshold, *others)))
        from_forest = selection.is_whole_space and low >= space.floor_cosine
        forest = ForestBuilder()
        if from_forest:
            progress("curve", 0.0)
            forest.add(links_of_positions(view, selection, low))
            facts = view.matching(space.space_id)
        else:
            low = lowest_to_match(request, selection, low)
            codes = view.codes(space, selection.rows)
            matching = Matching(codes, low, request.rematch, interrupt, progress)
            for links in matching.links():
                forest.add(links)
            facts = matching.facts
    progress("curve", 0.0)
    exact = curve_of(selection, forest.result(), max(low, -1.0), interrupt)
    method = "forest" if from_forest else "rematch"
    return SelectionThresholds(selection, threshold, others, method, facts, exact)
