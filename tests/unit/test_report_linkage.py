"""What report.html says of linkage, low quality, people of one frame, and what components would merge."""

from __future__ import annotations

import json
import re
import zipfile

import numpy as np
import pytest

from stream_cluster.snapshot import trees
from stream_cluster.snapshot.clusters import number_clusters
from stream_cluster.snapshot.report.head import count_rows, parameter_rows, tiles
from stream_cluster.snapshot.report.merged import merged_by_components
from stream_cluster.snapshot.report.words import request_in_words
from tests.support.pages import as_of_average_linkage, content_of, write_page
from tests.support.partitions import manifest_of, message, partition_of, snapshot
from tests.unit.test_report_page import data_of, page_in


def direction(degrees, axis=0):
    """A unit vector in a plane, of several."""
    angle = np.radians(degrees)
    vector = np.zeros(8, np.float32)
    vector[2 * axis : 2 * axis + 2] = np.cos(angle), np.sin(angle)
    return vector


def lines_of(archive):
    with zipfile.ZipFile(archive) as zipped:
        return [json.loads(line) for line in zipped.read("clusters.jsonl").splitlines()]


def plain(page):
    """The text of some HTML."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page if isinstance(page, str) else page.decode()))


@pytest.fixture
def chain(tmp_path):
    """Three pairs in a row, whose ends are links of 50 degrees and whose averages are none; and one alone."""
    degrees = (0, 10, 60, 70, 120, 130)
    objects = [message(number, direction(angle), quality=0.9) for number, angle in enumerate(degrees)]
    partition = partition_of(tmp_path, [*objects, message(6, direction(0, axis=1), quality=0.1)])
    yield partition
    partition.close()


def test_average_linkage_says_what_components_would_have_merged(chain, tmp_path):
    archive, _ = snapshot(chain, tmp_path / "a.zip", threshold=0.6, linkage="average")
    page = page_in(archive)
    columns = data_of(page, "clusters")
    assert columns["size"] == [2, 2, 2, 1]
    assert columns["component"] == [0, 0, 0, -1]
    assert (columns["componentClusters"], columns["componentObjects"]) == ([3], [6])
    assert data_of(page, "facts")["average"] is True
    text = plain(page)
    assert "(average linkage)" in text
    assert (
        "Connected components at this threshold would have merged these 4 clusters into 2, "
        "the largest of 6 objects (85.7%)."
    ) in text
    assert "Connected components at every threshold" in text
    assert "Linkage average" in text


def test_components_say_so_and_have_nothing_to_compare(chain, tmp_path):
    archive, _ = snapshot(chain, tmp_path / "a.zip", threshold=0.6)
    page = page_in(archive)
    columns, text = data_of(page, "clusters"), plain(page)
    assert columns["size"] == [6, 1]
    assert not {"component", "componentClusters", "low"} & set(columns)
    assert data_of(page, "facts")["average"] is False
    assert "Linkage connected components" in text
    assert "would have merged these" not in text
    assert "Clusters at every threshold" in text


def test_average_linkage_that_changes_nothing_says_so(tmp_path):
    partition = partition_of(tmp_path, [message(n, direction(10 * n)) for n in range(3)])
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6, linkage="average")
    partition.close()
    assert "Connected components at this threshold are the same clusters." in plain(page_in(archive))
    assert data_of(page_in(archive), "clusters")["component"] == [-1]


def test_low_quality_is_counted_on_the_page_and_marked_in_each_cluster(tmp_path):
    objects = [message(0, direction(0), quality=0.9), message(1, direction(20), quality=0.1),
               message(2, direction(0, axis=1), quality=0.2)]  # fmt: skip
    partition = partition_of(tmp_path, objects)
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6, min_quality=0.5)
    partition.close()
    assert manifest_of(archive)["counts"]["low_quality"] == {"objects": 2, "attached": 1, "unattached": 1}
    page = page_in(archive)
    assert data_of(page, "clusters")["low"] == [1, 1]
    assert data_of(page, "members-0")["low"] == [0, 1, 1]
    text = plain(page)
    assert "Objects of a quality below 0.5 form no cluster" in text
    assert "Low quality 2 1 attached, 1 left" in text
    assert "Selected objects below the quality asked for 2 attached to a cluster of others 1 left, " in text
    assert "Least quality 0.5" in text


def test_merges_that_frames_prevented_are_on_the_page(tmp_path):
    objects = [
        message(number, direction(angle), frame_id=frame, source="gate", track_id=f"t{number}")
        for number, (angle, frame) in enumerate([(0, "f1"), (5, "f1"), (90, "f2")])
    ]
    partition = partition_of(tmp_path, objects)
    archive, _ = snapshot(
        partition, tmp_path / "a.zip", threshold=0.6, linkage="average", cannot_link="same_frame"
    )
    partition.close()
    prevented = manifest_of(archive)["counts"]["cannot_link"]["merges_prevented"]
    assert prevented == 1
    text = plain(page_in(archive))
    assert "Objects of one frame and different tracks are different people" in text
    assert "Merges prevented 1 by people of one frame" in text
    assert "merges that this alone prevented 1" in text
    assert "Kept apart objects of one frame" in text


def test_components_of_one_cluster_have_no_number_and_the_others_are_those_of_most_objects_first():
    clusters = number_clusters(np.array([0, 0, 1, 2, 2, 2, 3, 4, 5], np.int32))
    components = number_clusters(np.array([0, 0, 0, 1, 1, 1, 1, 2, 2], np.int32))
    merged = merged_by_components(clusters, components)
    of_object = merged.component[clusters.numbers]
    assert of_object.tolist() == [1, 1, 1, 0, 0, 0, 0, 2, 2]
    assert (merged.clusters.tolist(), merged.objects.tolist()) == ([2, 2, 2], [4, 3, 2])
    alone = merged_by_components(clusters, clusters)
    assert alone.component.tolist() == [-1] * 6
    assert not len(alone.clusters)


def test_clusters_whose_figures_are_of_a_sample_are_named_and_counted(tmp_path):
    content = as_of_average_linkage(content_of([40, 20, 3, 1]))
    write_page(tmp_path / "report.html", content)
    page = (tmp_path / "report.html").read_bytes()
    assert data_of(page, "facts")["sampled"] == [0]
    assert "Clusters with a weakest link of a sample 1" in plain(count_rows(content.manifest["counts"]))


def test_an_archive_says_which_figures_are_of_a_sample(tmp_path, monkeypatch):
    # The one of low quality hangs on the other by a link that the forest has not, and may not be looked for.
    objects = [message(0, direction(0), quality=0.9), message(1, direction(20), quality=0.1),
               message(2, direction(0, axis=1), quality=0.9)]  # fmt: skip
    partition = partition_of(tmp_path, objects)
    monkeypatch.setattr(trees, "_BLOCK_ROWS", 1)
    whole, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6, min_quality=0.5)
    monkeypatch.setattr(trees, "_MOST_PAIRS", 0)
    sampled, _ = snapshot(partition, tmp_path / "b.zip", threshold=0.6, min_quality=0.5)
    partition.close()
    assert "clusters_sampled" not in manifest_of(whole)["counts"]
    assert manifest_of(sampled)["counts"]["clusters_sampled"] == 1
    assert [(line.get("sampled"), line["weakest_link"]) for line in lines_of(whole)] == [
        (None, pytest.approx(np.cos(np.radians(20)), abs=0.01)),
        (None, None),
    ]
    assert [(line.get("sampled"), line["weakest_link"]) for line in lines_of(sampled)] == [
        (True, None),
        (None, None),
    ]
    assert data_of(page_in(sampled), "facts")["sampled"] == [0]


def test_a_task_without_any_of_these_shows_none_of_them():
    manifest = content_of([3, 1]).manifest
    shown = plain(
        request_in_words(manifest) + tiles(manifest["counts"]) + count_rows(manifest["counts"])
    ).lower()
    for word in ("quality", "frame", "prevented", "connected components", "sample"):
        assert word not in shown
    assert "Least quality none" in plain(parameter_rows(manifest))


def test_the_page_of_many_clusters_in_components_stays_within_its_bytes(tmp_path):
    content = as_of_average_linkage(content_of([4] * 3000))
    counts = write_page(tmp_path / "report.html", content, max_bytes=300_000)
    assert (tmp_path / "report.html").stat().st_size <= 300_000
    columns = data_of((tmp_path / "report.html").read_bytes(), "clusters")
    assert len(columns["component"]) == counts["clusters"] == len(columns["low"])
    assert max(columns["component"]) < len(columns["componentClusters"])
