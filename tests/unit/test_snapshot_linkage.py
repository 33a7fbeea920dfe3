"""Average linkage as a task sees it: tracks, filters, the floor, the manifest, progress and the end of it."""

from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.config import Settings
from stream_cluster.errors import Cancelled
from stream_cluster.matching import quantise
from stream_cluster.messages import Content, Filters, TaskRequest
from stream_cluster.model import Interrupt
from stream_cluster.snapshot import linkage
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import run_snapshot
from tests.support.oracle import average_clusters
from tests.support.partitions import (
    NOW_US,
    clusters_of,
    manifest_of,
    message,
    partition_of,
    snapshot,
    vectors,
)

COUNT = 60


def chain_of_directions(count, degrees=40):
    """Unit vectors in a plane, each `degrees` from the one before it."""
    angle = np.radians(degrees) * np.arange(count)
    return np.stack([np.cos(angle), np.sin(angle)] + [np.zeros(count)] * 6, axis=1).astype(np.float32)


def ids_of(clusters):
    return {frozenset(f"acme-{position:05}" for position in cluster) for cluster in clusters}


@pytest.fixture
def partition(tmp_path):
    """Objects on two cameras, some of them on tracks of several people."""
    held = partition_of(
        tmp_path,
        [
            message(
                n,
                point,
                source=f"cam{n % 2}",
                track_id=None if n % 3 else f"track-{n // 12}",
            )
            for n, point in enumerate(vectors(COUNT, people=9))
        ],
    )
    yield held
    held.close()


def expected(threshold, *, chosen=range(COUNT), tracks=False):
    points = vectors(COUNT, people=9)[list(chosen)]
    groups = [None if n % 3 else n // 12 for n in chosen] if tracks else None
    clusters = average_clusters(quantise(points), threshold, groups)
    return {frozenset(f"acme-{list(chosen)[position]:05}" for position in cluster) for cluster in clusters}


def test_average_linkage_does_not_chain_and_says_what_components_would_have_merged(tmp_path):
    points = chain_of_directions(6)
    partition = partition_of(tmp_path, [message(n, point) for n, point in enumerate(points)])
    archive, result = snapshot(partition, tmp_path / "a.zip", threshold=0.6, linkage="average")
    assert clusters_of(archive) == ids_of([{0, 1}, {2, 3}, {4, 5}])
    manifest = manifest_of(archive)
    assert manifest["parameters"]["linkage"] == "average"
    assert manifest["counts"]["components"] == {"clusters": 1, "largest_cluster": 6}
    assert (manifest["counts"]["clusters"], manifest["counts"]["largest_cluster"]) == (3, 2)
    assert (result.clusters, result.largest_cluster) == (3, 2)
    chained, _ = snapshot(partition, tmp_path / "b.zip", threshold=0.6)
    assert clusters_of(chained) == ids_of([range(6)])
    assert "components" not in manifest_of(chained)["counts"]
    partition.close()


@pytest.mark.parametrize(("threshold", "method"), [(0.5, "forest"), (0.7, "forest"), (0.2, "rematch")])
@pytest.mark.parametrize("tracks", [False, True])
def test_the_clusters_are_those_of_the_oracle_above_and_below_the_floor(
    partition, tmp_path, threshold, method, tracks
):
    content = {"threshold": threshold, "linkage": "average", "use_track_info": tracks}
    archive, _ = snapshot(partition, tmp_path / "a.zip", **content)
    assert manifest_of(archive)["method"] == method
    assert clusters_of(archive) == expected(threshold, tracks=tracks)
    again, _ = snapshot(partition, tmp_path / "b.zip", **content)
    assert again.read_bytes() == archive.read_bytes()


@pytest.mark.parametrize("tracks", [False, True])
def test_a_filtered_task_sees_the_selected_objects_only(partition, tmp_path, tracks):
    archive, _ = snapshot(
        partition,
        tmp_path / "a.zip",
        threshold=0.5,
        linkage="average",
        use_track_info=tracks,
        filters=Filters(sources=["cam1"]),
    )
    assert clusters_of(archive) == expected(0.5, chosen=range(1, COUNT, 2), tracks=tracks)


def test_components_of_many_groups_are_searched_by_the_kernel_and_give_the_same(
    partition, tmp_path, monkeypatch
):
    monkeypatch.setattr(linkage, "_SMALL_COMPONENT", 2)
    for threshold in (0.5, 0.2):
        for tracks in (False, True):
            archive, _ = snapshot(
                partition, tmp_path / "a.zip", threshold=threshold, linkage="average", use_track_info=tracks
            )
            assert clusters_of(archive) == expected(threshold, tracks=tracks)


def test_many_equal_objects_are_one_cluster_however_few_links_fit_in_memory(tmp_path, monkeypatch):
    points = np.repeat(vectors(2, people=2), 40, axis=0)
    partition = partition_of(tmp_path, [message(n, point) for n, point in enumerate(points)])
    monkeypatch.setattr(linkage.labels_by_average, "__kwdefaults__", {"capacity": 16})
    for threshold in (0.9, 0.2):
        archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=threshold, linkage="average")
        assert clusters_of(archive) == ids_of([range(40), range(40, 80)])
    partition.close()


def run(partition, target, interrupt, progress):
    content = Content(objects_type="events", threshold=0.2, linkage="average")
    task = TaskRequest(task_id="t", account_id="acme", content=content)
    request = resolve_request(task, Settings(), NOW_US)
    with partition.view() as view:
        run_snapshot(view, request, target, interrupt=interrupt, progress=progress, as_of=None)


def test_progress_names_the_stage_linkage_and_never_goes_back(partition, tmp_path):
    seen = []
    run(partition, tmp_path / "a.zip", Interrupt(), lambda stage, share: seen.append((stage, share)))
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == ["select", "match", "linkage", "clusters", "report", "page"]


def test_a_snapshot_cancelled_while_groups_merge_leaves_no_file(partition, tmp_path):
    interrupt = Interrupt()

    def cancel(stage, _share):
        if stage == "linkage":
            interrupt.cancel()

    with pytest.raises(Cancelled):
        run(partition, tmp_path / "out" / "a.zip", interrupt, cancel)
    assert not list((tmp_path / "out").glob("*"))
