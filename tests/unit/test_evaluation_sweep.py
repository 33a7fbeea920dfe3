"""A sweep gives the clusters of a task at each threshold, whatever part of the links it kept."""

from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.errors import Cancelled
from stream_cluster.evaluation.measures import measure
from stream_cluster.evaluation.sweep import Point, best, cuts, good_range
from stream_cluster.matching import quantise
from stream_cluster.model import Interrupt, no_progress
from tests.support.oracle import average_clusters, naive_components, naive_links
from tests.support.partitions import vectors

COSINES = [0.2, 0.45, 0.7]


def as_sets(labels):
    return {frozenset(np.flatnonzero(np.asarray(labels) == label).tolist()) for label in set(labels)}


@pytest.mark.parametrize("capacity", [2, 10**6])
def test_every_cut_has_the_clusters_of_the_oracle(capacity):
    codes = quantise(vectors(36, people=5, dim=16, seed=3))
    found = list(
        cuts(
            codes,
            COSINES,
            ["average", "components"],
            interrupt=Interrupt(),
            progress=no_progress,
            capacity=capacity,
        )
    )
    assert [(cut.linkage, cut.place) for cut in found] == [
        (linkage, place) for linkage in ("average", "components") for place in range(len(COSINES))
    ]
    for cut in found:
        cosine = COSINES[cut.place]
        if cut.linkage == "average":
            expected = {frozenset(cluster) for cluster in average_clusters(codes, cosine, None)}
        else:
            pairs = [(a, b) for a, b, _ in naive_links(codes, cosine)]
            expected = as_sets(naive_components(len(codes), pairs))
        assert as_sets(cut.labels.tolist()) == expected


def test_a_sweep_stops_when_asked_and_tells_its_progress():
    codes = quantise(vectors(40, people=5))
    told = []
    interrupt = Interrupt()

    def progress(stage, share):
        told.append(stage)
        if stage == "cut":
            interrupt.cancel()

    with pytest.raises(Cancelled):
        list(cuts(codes, COSINES, ["components"], interrupt=interrupt, progress=progress))
    assert set(told) == {"match", "cut"}
    assert told.count("cut") == 1


def point(threshold, clusters, people):
    return Point("average", threshold, threshold, measure(clusters, people))


def test_the_best_point_has_the_highest_pairwise_f_and_of_equal_ones_the_lowest_threshold():
    right, wrong = [0, 0, 1, 1], [0, 1, 2, 3]
    points = [point(0.1, wrong, right), point(0.2, right, right), point(0.3, right, right)]
    assert best(points) is points[1]


def test_the_good_range_is_the_longest_run_of_thresholds():
    right, wrong = [0, 0, 1, 1], [0, 1, 2, 3]
    shape = [right, wrong, right, right, right, wrong, right, right]
    points = [point(number / 10, clusters, right) for number, clusters in enumerate(shape)]
    assert good_range(points) == (0.2, 0.4)
    assert good_range(points[1:2]) is None
