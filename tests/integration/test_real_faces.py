"""Real faces through Kafka and through the command line: the clusters of SciPy over float32 cosines."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from benchmarks.faces import FaceSet, read_clusters, read_faces
from benchmarks.reference import TOLERANCE, cosine_links, within_tolerance
from stream_cluster.model import Links
from stream_cluster.sandbox import Broker
from tests.support.client import Client, client_of, clustering
from tests.support.faces import face_messages, require_faces
from tests.support.service import COMMAND, make_topics, running_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

THRESHOLDS = (0.52, 0.60)


@dataclass
class Stage:
    """A service that has taken in the faces, and the truth by cosines."""

    client: Client
    events: Path
    faces: FaceSet
    links: Links
    """By cosine, complete for every threshold tested."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = require_faces()
    faces = read_faces(folder)
    links = cosine_links(faces.vectors, min(THRESHOLDS) - 2 * TOLERANCE)
    topics = await make_topics(broker, "real-faces", 2)
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path_factory.mktemp("real-faces")),
    ):
        await client.produce_lines("lfw", face_messages(folder))
        yield Stage(client, folder / "events.jsonl.gz", faces, links)


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
    command = [sys.executable, "-c", COMMAND, "cluster", str(stage.events), "--descriptor-type", "face"]
    command += ["--threshold", f"{threshold:g}", "--output", str(output)]
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert np.array_equal(read_clusters(output, stage.faces.ids), streamed)
