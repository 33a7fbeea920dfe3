"""Real faces through Kafka and through the command line: the clusters of SciPy over float32 cosines."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from scipy.cluster import hierarchy

from benchmarks.faces import FaceSet, read_clusters, read_faces
from benchmarks.reference import TOLERANCE, cosine_links, within_tolerance
from stream_cluster.evaluation.measures import measure
from stream_cluster.matching import quantise
from stream_cluster.model import Links
from stream_cluster.sandbox import Broker
from tests.support.client import Client, client_of, clustering
from tests.support.faces import face_messages, require_faces, unpack_images
from tests.support.service import COMMAND, make_topics, running_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

THRESHOLDS = (0.52, 0.60)


@dataclass
class Stage:
    """A service that has taken in the faces, and the truth by cosines."""

    client: Client
    events: Path
    images: Path
    """Folder of the unpacked images; empty when this machine has none."""
    faces: FaceSet
    links: Links
    """By cosine, complete for every threshold tested."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = require_faces()
    faces = read_faces(folder)
    links = cosine_links(faces.vectors, min(THRESHOLDS) - 2 * TOLERANCE)
    images = tmp_path_factory.mktemp("images")
    unpack_images(folder, images)
    topics = await make_topics(broker, "real-faces", 2)
    async with (
        client_of(broker, topics) as client,
        running_service(
            broker,
            topics,
            tmp_path_factory.mktemp("real-faces"),
            images__roots=[{"kind": "directory", "path": str(images)}],
        ),
    ):
        await client.produce_lines("lfw", face_messages(folder))
        yield Stage(client, folder / "events.jsonl.gz", images, faces, links)


async def cluster_file(stage: Stage, output: Path, *options: str) -> None:
    """Run `stream-cluster cluster` on the faces."""
    command = [sys.executable, "-c", COMMAND, "cluster", str(stage.events), "--descriptor-type", "face"]
    command += ["--output", str(output), *options]
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr


def contents(archive: Path) -> dict[str, bytes]:
    """The entries of an archive by name, in their order, all of them whole."""
    with zipfile.ZipFile(archive) as entries:
        return {name: entries.read(name) for name in entries.namelist()}


@pytest.mark.parametrize("threshold", THRESHOLDS)
async def test_clusters_equal_scipys_components_but_for_links_at_the_threshold(
    stage: Stage, threshold: float, tmp_path: Path
) -> None:
    task_id = f"faces-{threshold}"
    await stage.client.submit(clustering(task_id, "lfw", threshold=threshold))
    archive = await stage.client.archive(task_id, "lfw", timeout_s=60)
    assert archive.manifest["method"] == "forest"
    assert archive.manifest["counts"]["selected"] == len(stage.faces.ids)
    streamed = read_clusters(archive.path, stage.faces.ids)
    agreement = within_tolerance(streamed, stage.links, threshold)
    assert agreement.accepted, agreement
    assert 1000 < len(archive.clusters) < len(stage.faces.ids)

    output = tmp_path / "file.zip"
    await cluster_file(stage, output, "--threshold", f"{threshold:g}")
    assert np.array_equal(read_clusters(output, stage.faces.ids), streamed)


async def test_average_linkage_is_that_of_scipy_and_finds_the_people(stage: Stage, tmp_path: Path) -> None:
    threshold = 0.425
    await stage.client.submit(clustering("average", "lfw", threshold=threshold, linkage="average"))
    archive = await stage.client.archive("average", "lfw", timeout_s=60)
    streamed = read_clusters(archive.path, stage.faces.ids)
    output = tmp_path / "file.zip"
    await cluster_file(stage, output, "--threshold", f"{threshold:g}", "--linkage", "average")
    assert np.array_equal(read_clusters(output, stage.faces.ids), streamed)

    codes = quantise(stage.faces.vectors)
    units = codes / np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    distance = (1 - units @ units.T)[np.triu_indices(len(codes), 1)]
    expected = hierarchy.fcluster(hierarchy.linkage(distance, "average"), 1 - threshold, "distance")
    pairs = np.unique(np.stack((expected, streamed)), axis=1).shape[1]
    assert pairs == len(np.unique(expected)) == len(archive.clusters)

    quality = measure(streamed, stage.faces.people)
    assert quality.pairwise.f >= 0.99
    assert quality.bcubed.f >= 0.98
    components = archive.manifest["counts"]["components"]
    assert components["largest_cluster"] > 2 * quality.largest_cluster


FILTERS = {"create_time__gte": "2026-05-01T09:00:00Z", "create_time__lt": "2026-05-01T15:00:00Z"}
COLUMNS = ["create_time", "source", "track_id"]


async def test_a_task_with_images_tracks_a_time_range_and_columns_is_the_same_through_kafka_and_from_a_file(
    stage: Stage, tmp_path: Path
) -> None:
    if not any(stage.images.iterdir()):
        pytest.skip("no images of the real faces: there is no images.zip beside events.jsonl.gz")
    task = clustering(
        "full",
        "lfw",
        threshold=0.52,
        use_track_info=True,
        save_images=True,
        filters=FILTERS,
        report={"columns": COLUMNS},
    )
    await stage.client.submit(task)
    streamed = await stage.client.archive("full", "lfw", timeout_s=60)

    filters = tmp_path / "filters.json"
    filters.write_text(json.dumps(FILTERS))
    output = tmp_path / "file.zip"
    options = ["--threshold", "0.52", "--task-id", "full", "--filters", str(filters), "--use-track-info"]
    options += ["--columns", ",".join(COLUMNS), "--save-images", "--image-root", str(stage.images)]
    await cluster_file(stage, output, *options)

    by_kafka, by_file = contents(streamed.path), contents(output)
    manifests = [json.loads(entries.pop("manifest.json")) for entries in (by_kafka, by_file)]
    assert list(by_kafka) == list(by_file)
    pages = [
        re.sub(rb"<p class=stamp>.*?</p>", b"", entries.pop("report.html")) for entries in (by_kafka, by_file)
    ]
    assert pages[0] == pages[1]
    assert by_kafka == by_file
    # Only the points of the log differ: a file has none.
    assert [manifest.pop("as_of") is None for manifest in manifests] == [False, True]
    assert [manifest.pop("log_begins_at") for manifest in manifests] == [0, None]
    assert manifests[0] == manifests[1]

    selected = manifests[0]["counts"]["selected"]
    assert 500 < selected < len(stage.faces.ids)
    images = {reason: count for reason, count in manifests[0]["counts"]["images"].items() if count}
    assert images == {"wanted": selected, "saved": selected}
    expected = {
        f"images/{row['cluster']}/{row['event_id']}.jpg": (
            stage.images / f"{row['event_id']}.jpg"
        ).read_bytes()
        for row in streamed.report
    }
    assert {name: data for name, data in by_kafka.items() if name.startswith("images/")} == expected
    tracks: dict[str, set[str]] = {}
    for row in streamed.report:
        assert "2026-05-01T09" <= row["create_time"] < "2026-05-01T15"
        if row["track_id"]:
            tracks.setdefault(row["track_id"], set()).add(row["cluster"])
    assert len(tracks) > 10
    assert {len(clusters) for clusters in tracks.values()} == {1}
