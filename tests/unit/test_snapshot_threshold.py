"""Thresholds of tasks on the scale of the version that they cluster, from partition to archive."""

from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.config import ScaleSettings, Settings, SimilaritySettings
from stream_cluster.config.similarity import DescriptorSimilarity
from stream_cluster.errors import TaskError
from stream_cluster.matching.scale import floor_cosine, make_scale
from stream_cluster.messages import Filters
from tests.support.partitions import (
    clusters_of,
    manifest_of,
    message,
    open_partition,
    partition_of,
    records,
    snapshot,
    vectors,
)

TABLE = ScaleSettings(
    scale="table", points=((0.2, 0.0), (0.7, 0.5), (1.0, 1.0)), default_threshold=0.4, floor=0.25
)
LOGISTIC = ScaleSettings(scale="logistic", midpoint=0.6, slope=12.0, default_threshold=0.7, floor=0.2)
SETTINGS = Settings(
    similarity=SimilaritySettings(
        face=DescriptorSimilarity(versions={2: LOGISTIC, 3: TABLE}, floor=0.3, default_threshold=0.5)
    )
)
VECTORS = vectors(80, seed=4)


@pytest.fixture
def partition(tmp_path):
    """The same 80 objects' vectors under three versions of the face descriptor."""
    opened = open_partition(tmp_path, floor=lambda key: floor_cosine(SETTINGS.similarity, key))
    for version in (1, 2, 3):
        messages = [message(number, vector, version=version) for number, vector in enumerate(VECTORS)]
        opened.apply(records(messages, first_offset=opened.next_offset))
    yield opened
    opened.close()


@pytest.mark.parametrize(("version", "scale"), [(2, LOGISTIC), (3, TABLE)])
@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.81, 0.95])
def test_clusters_at_a_threshold_on_a_scale_are_those_at_the_matching_cosine(
    partition, tmp_path, version, scale, threshold
):
    cosine = float(make_scale(scale).to_cosine(threshold))
    plain, _ = snapshot(
        partition, tmp_path / "1.zip", settings=SETTINGS, descriptor_version=1, threshold=cosine
    )
    scaled, result = snapshot(
        partition, tmp_path / "2.zip", settings=SETTINGS, descriptor_version=version, threshold=threshold
    )
    assert clusters_of(scaled) == clusters_of(plain)
    assert result.threshold == threshold
    parameters = manifest_of(scaled)["parameters"]
    assert parameters["threshold"] == threshold
    assert parameters["threshold_cosine"] == pytest.approx(cosine)


def test_one_threshold_means_different_cosines_for_different_versions(partition, tmp_path):
    found = {}
    for version in (1, 2, 3):
        archive, _ = snapshot(
            partition, tmp_path / "a.zip", settings=SETTINGS, descriptor_version=version, threshold=0.5
        )
        found[version] = manifest_of(archive)["parameters"]["threshold_cosine"]
    assert found == pytest.approx({1: 0.5, 2: 0.6, 3: 0.7})


def test_the_manifest_tells_the_scale(partition, tmp_path):
    archive, _ = snapshot(partition, tmp_path / "a.zip", settings=SETTINGS, descriptor_version=2)
    assert manifest_of(archive)["parameters"]["similarity"] == {
        "scale": "logistic",
        "midpoint": 0.6,
        "slope": 12.0,
    }
    archive, _ = snapshot(partition, tmp_path / "a.zip", settings=SETTINGS, descriptor_version=3)
    assert manifest_of(archive)["parameters"]["similarity"]["points"] == [[0.2, 0.0], [0.7, 0.5], [1.0, 1.0]]


@pytest.mark.parametrize(("version", "expected"), [(None, 0.4), (1, 0.5), (2, 0.7), (3, 0.4)])
def test_a_task_without_a_threshold_gets_the_default_of_the_version_that_it_clusters(
    partition, tmp_path, version, expected
):
    _, result = snapshot(partition, tmp_path / "a.zip", settings=SETTINGS, descriptor_version=version)
    assert result.threshold == expected


def test_floors_are_those_of_the_versions_and_decide_what_the_forest_answers(partition, tmp_path):
    with partition.view() as view:
        floors = {space.key.version: space.floor_cosine for space in view.spaces()}
    expected = {1: 0.3, 2: float(make_scale(LOGISTIC).to_cosine(0.2)), 3: 0.45}
    assert floors == pytest.approx(expected)
    methods = {
        threshold: snapshot(
            partition, tmp_path / "a.zip", settings=SETTINGS, descriptor_version=2, threshold=threshold
        )[1].method
        for threshold in (0.199, 0.2, 0.9)
    }
    assert methods == {0.199: "rematch", 0.2: "forest", 0.9: "forest"}


@pytest.mark.parametrize("version", [2, None])
def test_a_threshold_outside_the_scale_is_a_bad_request_that_names_the_range(partition, tmp_path, version):
    with pytest.raises(TaskError) as caught:
        snapshot(
            partition, tmp_path / "a.zip", settings=SETTINGS, descriptor_version=version, threshold=-0.25
        )
    name = "logistic scale of face version 2" if version else "table scale of face version 3"
    assert caught.value.code == "bad_request"
    assert caught.value.message == f"content.threshold: found -0.25, expected 0 to 1, the range of the {name}"
    assert not (tmp_path / "a.zip").exists()


def test_the_ends_of_a_logistic_scale_link_every_pair_and_none(partition, tmp_path):
    everything, _ = snapshot(
        partition, tmp_path / "a.zip", settings=SETTINGS, descriptor_version=2, threshold=0.0
    )
    assert [len(cluster) for cluster in clusters_of(everything)] == [80]
    nothing, _ = snapshot(
        partition, tmp_path / "b.zip", settings=SETTINGS, descriptor_version=2, threshold=1.0
    )
    assert {len(cluster) for cluster in clusters_of(nothing)} == {1}


def test_a_filtered_task_is_matched_again_at_the_cosine_of_its_threshold(partition, tmp_path):
    chosen = [f"acme-{number:05}" for number in range(0, 80, 2)]
    results = [
        snapshot(
            partition,
            tmp_path / f"{version}.zip",
            settings=SETTINGS,
            descriptor_version=version,
            threshold=threshold,
            filters=Filters(event_ids=chosen),
        )
        for version, threshold in ((1, 0.6), (2, 0.5))
    ]
    assert [result.method for _, result in results] == ["rematch", "rematch"]
    plain, scaled = (clusters_of(archive) for archive, _ in results)
    assert plain == scaled
    assert 1 < len(plain) < 40


def test_a_link_is_strictly_more_similar_than_the_threshold(tmp_path):
    # Their cosine is 1/2 to the last bit.
    vectors_at_60_degrees = np.array([[1, 1, 1, 1], [1, 1, 1, -1]], np.int8)
    partition = partition_of(tmp_path, [message(n, each) for n, each in enumerate(vectors_at_60_degrees)])
    just_below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    for filters in (Filters(), Filters(create_time__gte="now-10y")):
        apart, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.5, filters=filters)
        together, _ = snapshot(partition, tmp_path / "b.zip", threshold=just_below, filters=filters)
        assert (len(clusters_of(apart)), len(clusters_of(together))) == (2, 1)
    partition.close()
