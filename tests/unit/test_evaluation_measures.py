from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

from stream_cluster.evaluation.measures import Quality, measure


def share(good, total):
    return good / total if total else 1.0


def brute_force(clusters, people):
    """Pairwise and BCubed precision and recall straight from their definitions."""
    n = len(clusters)
    pairs = list(itertools.combinations(range(n), 2))
    put = [pair for pair in pairs if clusters[pair[0]] == clusters[pair[1]]]
    same = [pair for pair in pairs if people[pair[0]] == people[pair[1]]]
    both = len(set(put) & set(same))
    precisions, recalls = [], []
    for i in range(n):
        cluster = [j for j in range(n) if clusters[j] == clusters[i]]
        person = [j for j in range(n) if people[j] == people[i]]
        good = sum(people[j] == people[i] for j in cluster)
        precisions.append(good / len(cluster))
        recalls.append(good / len(person))
    return (share(both, len(put)), share(both, len(same)), sum(precisions) / n, sum(recalls) / n)


def people_in(label, clusters, people):
    return {person for cluster, person in zip(clusters, people, strict=True) if cluster == label}


labels = st.integers(1, 25).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 6), min_size=n, max_size=n) for _ in range(2)))
)


@given(labels)
def test_scores_equal_their_definitions_computed_pair_by_pair(pair):
    clusters, people = pair
    quality = measure(clusters, people)
    found = (
        quality.pairwise.precision,
        quality.pairwise.recall,
        quality.bcubed.precision,
        quality.bcubed.recall,
    )
    assert found == pytest.approx(brute_force(clusters, people))
    assert quality.adjusted_rand == pytest.approx(adjusted_rand_score(people, clusters))
    measured = quality.v_measure
    assert (measured.homogeneity, measured.completeness, measured.v) == pytest.approx(
        homogeneity_completeness_v_measure(people, clusters), abs=1e-9
    )
    impure = [label for label in clusters if len(people_in(label, clusters, people)) > 1]
    assert quality.largest_impure_cluster == max((clusters.count(label) for label in impure), default=0)
    assert quality.clusters == len(set(clusters))
    assert quality.people == len(set(people))
    assert quality.largest_cluster == max(clusters.count(label) for label in clusters)


@given(labels)
def test_exchanging_the_two_sides_exchanges_precision_and_recall(pair):
    one, other = measure(*pair), measure(*reversed(pair))
    assert one.pairwise.precision == other.pairwise.recall
    assert one.bcubed.precision == pytest.approx(other.bcubed.recall)
    assert one.pairwise.f == pytest.approx(other.pairwise.f)
    assert one.adjusted_rand == pytest.approx(other.adjusted_rand)


def test_equal_partitions_with_other_names_are_perfect():
    quality = measure([7, 7, -1, 3], ["x", "x", "y", "z"])
    assert quality.as_dict() == {
        "pairwise": {"precision": 1.0, "recall": 1.0, "f": 1.0},
        "bcubed": {"precision": 1.0, "recall": 1.0, "f": 1.0},
        "adjusted_rand": 1.0,
        "homogeneity": 1.0,
        "completeness": 1.0,
        "v_measure": 1.0,
        "clusters": 3,
        "people": 3,
        "largest_cluster": 2,
        "largest_impure_cluster": 0,
    }


def test_a_hand_computed_example():
    # Clusters {a a b} {b}: one of three pairs is right, one of two pairs of a person is found.
    quality = measure([0, 0, 0, 1], ["a", "a", "b", "b"])
    assert (quality.pairwise.precision, quality.pairwise.recall) == (1 / 3, 1 / 2)
    assert quality.pairwise.f == pytest.approx(0.4)
    assert quality.bcubed.precision == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1) / 4)
    assert quality.bcubed.recall == pytest.approx((1 + 1 + 1 / 2 + 1 / 2) / 4)


def test_f_is_zero_when_nothing_is_right():
    assert measure([0, 0, 1, 1], [0, 1, 0, 1]).pairwise.f == 0


def test_a_million_objects_in_one_cluster_do_not_overflow():
    quality = measure(np.zeros(1_000_000, np.int32), np.zeros(1_000_000, np.int32))
    assert isinstance(quality, Quality)
    assert quality.pairwise.f == quality.bcubed.f == quality.adjusted_rand == 1.0


@pytest.mark.parametrize(("clusters", "people"), [([], []), ([0], [0, 1]), ([[0]], [[0]])])
def test_labels_of_different_or_no_objects_are_refused(clusters, people):
    with pytest.raises(ValueError, match="equally long"):
        measure(clusters, people)
