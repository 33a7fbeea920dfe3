"""What an evaluation found, for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stream_cluster.evaluation.files import ArchiveEvaluation, SweepEvaluation
from stream_cluster.evaluation.mistakes import Mistake
from stream_cluster.evaluation.sweep import GOOD, Point, best, good_range
from stream_cluster.model import Linkage


def archive_as_dict(evaluation: ArchiveEvaluation) -> dict[str, Any]:
    """All figures of an archive, its worst merges and splits with ids."""
    ids, labels = evaluation.ids, evaluation.labels

    def merge(mistake: Mistake) -> dict[str, Any]:
        people = [
            {"label": labels[part.label], "objects": part.objects, "ids": [ids[at] for at in part.examples]}
            for part in mistake.parts
        ]
        return {
            "cluster": mistake.label,
            "objects": mistake.objects,
            "wrong_pairs": mistake.wrong_pairs,
            "people": mistake.parts_in_all,
            "largest": people,
        }

    def split(mistake: Mistake) -> dict[str, Any]:
        clusters = [
            {"cluster": part.label, "objects": part.objects, "ids": [ids[at] for at in part.examples]}
            for part in mistake.parts
        ]
        return {
            "label": labels[mistake.label],
            "objects": mistake.objects,
            "missed_pairs": mistake.wrong_pairs,
            "clusters": mistake.parts_in_all,
            "largest": clusters,
        }

    return {
        "parameters": dict(evaluation.parameters),
        "counts": dict(evaluation.counts),
        "quality": evaluation.quality.as_dict(),
        "worst_merges": [merge(mistake) for mistake in evaluation.merges],
        "worst_splits": [split(mistake) for mistake in evaluation.splits],
    }


def by_linkage(points: Sequence[Point]) -> dict[Linkage, list[Point]]:
    """The points of each linkage, by ascending threshold."""
    linkages = dict.fromkeys(point.linkage for point in points)
    return {
        linkage: sorted(
            (point for point in points if point.linkage == linkage), key=lambda point: point.threshold
        )
        for linkage in linkages
    }


def sweep_as_dict(evaluation: SweepEvaluation) -> dict[str, Any]:
    """All figures of a sweep, and for each linkage its best threshold and its range of good ones."""
    linkages = {}
    for linkage, points in by_linkage(evaluation.points).items():
        good = good_range(points)
        linkages[linkage] = {
            "best": _point(best(points)),
            "good": None if good is None else {"bcubed_f": GOOD, "from": good[0], "to": good[1]},
            "points": [_point(point) for point in points],
        }
    return {
        "space": dict(evaluation.space),
        "counts": dict(evaluation.counts),
        "records": {
            "read": evaluation.load.records,
            "rejected": dict(evaluation.load.rejected),
            "of_other_accounts": evaluation.load.of_other_accounts,
        },
        "linkages": linkages,
    }


def _point(point: Point) -> dict[str, Any]:
    return {"threshold": point.threshold, "cosine": point.cosine, **point.quality.as_dict()}
