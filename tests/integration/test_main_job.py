"""The main job: objects and tasks go through Kafka, and archives hold exactly the clusters of the objects."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stream_cluster.generate import GeneratedRecord, GenerateOptions, generate_events
from stream_cluster.messages import partition_for
from stream_cluster.sandbox import Broker
from tests.support.archives import Archive, Sighting, expected_clusters, sightings
from tests.support.client import Client, client_of, clustering
from tests.support.service import Worker, make_topics, running_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCOUNTS = ("acme", "globex", "initech")
PARTITIONS = 4
FLOOR = 0.45


@dataclass
class Stage:
    """A service that has taken in the objects of all accounts."""

    client: Client
    worker: Worker
    records: list[GeneratedRecord]

    def seen(self, account_id: str, kind: str = "face") -> list[Sighting]:
        """The objects of an account."""
        return sightings(self.records, account_id, kind)

    async def run(self, task_id: str, account_id: str, **content: Any) -> Archive:
        """Submit a task and return its archive."""
        await self.client.submit(clustering(task_id, account_id, **content))
        return await self.client.archive(task_id, account_id)


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[("json", "float32"), ("msgpack", "sdk")], ids=lambda p: p[0]
)
async def stage(
    request: pytest.FixtureRequest, broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    message_format, encoding = request.param
    options = GenerateOptions(
        events=2400,
        people=250,
        accounts=ACCOUNTS,
        cameras=12,
        descriptor="both",
        dim=128,
        encoding=encoding,
        format=message_format,
    )
    records = list(generate_events(options))
    topics = await make_topics(broker, f"main-job-{message_format}", PARTITIONS)
    folder = tmp_path_factory.mktemp("main-job")
    async with client_of(broker, topics) as client, running_service(broker, topics, folder) as worker:
        # No wait for ingest: the barrier of each task sees to it.
        await client.produce(records)
        yield Stage(client, worker, records)


async def test_the_accounts_lie_in_different_partitions(stage: Stage) -> None:
    assert len({partition_for(account, PARTITIONS, "murmur2") for account in ACCOUNTS}) > 1


@pytest.mark.parametrize("kind", ["face", "body"])
async def test_clusters_of_every_account_are_the_components_of_its_links(stage: Stage, kind: str) -> None:
    columns = ["create_time", "source", "track_id"]
    archives = await asyncio.gather(
        *(
            stage.run(
                f"all-{kind}",
                account,
                descriptor_type=kind,
                threshold=0.55,
                report={"format": "csv", "columns": columns},
            )
            for account in ACCOUNTS
        )
    )
    for account, archive in zip(ACCOUNTS, archives, strict=True):
        seen = stage.seen(account, kind)
        assert archive.members == expected_clusters(seen, 0.55)
        assert 1 < len(archive.clusters) < len(seen)
        assert archive.manifest["method"] == "forest"
        assert archive.manifest["counts"]["objects_received"] == len(seen)
        assert archive.manifest["as_of"] == {
            "topic": stage.client.topics.events,
            "partition": partition_for(account, PARTITIONS, "murmur2"),
            "next_offset": _records_in_the_partition_of(stage, account),
        }
        by_id = {each.object_id: each for each in seen}
        for row in archive.report:
            each = by_id[row["event_id"]]
            assert list(row) == ["cluster", "event_id", *columns]
            assert (row["source"], row["track_id"]) == (each.source, each.track_id)
            assert datetime.fromisoformat(row["create_time"]) == each.time


def _records_in_the_partition_of(stage: Stage, account: str) -> int:
    count = Counter(partition_for(record.account_id, PARTITIONS, "murmur2") for record in stage.records)
    return count[partition_for(account, PARTITIONS, "murmur2")]


async def test_statuses_come_in_order(stage: Stage) -> None:
    await stage.run("ordered", "acme")
    statuses = stage.client.statuses("ordered", "acme")
    states = [status["status"] for status in statuses]
    assert states[0] == "pending"
    assert states[-1] == "done"
    assert set(states[1:-1]) <= {"in_progress"}
    progress = [status["progress"] for status in statuses]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0, 1)
    times = [datetime.fromisoformat(status["time"]) for status in statuses]
    assert times == sorted(times)
    assert statuses[-1]["threshold"] == stage.worker.settings.similarity.face.default_threshold
    assert statuses[-1]["error"] is None


@pytest.mark.parametrize("threshold", [0.4, FLOOR, 0.7, 0.95])
async def test_every_threshold_is_exact_below_the_floor_too(stage: Stage, threshold: float) -> None:
    archive = await stage.run(f"threshold-{threshold}", "globex", threshold=threshold)
    assert archive.members == expected_clusters(stage.seen("globex"), threshold)
    assert archive.manifest["method"] == ("rematch" if threshold < FLOOR else "forest")


@pytest.mark.parametrize("threshold", [0.65, 0.8])
async def test_tracks_join_clusters_only_when_asked(stage: Stage, threshold: float) -> None:
    seen = stage.seen("acme")
    archive = await stage.run(f"tracks-{threshold}", "acme", threshold=threshold, use_track_info=True)
    assert archive.members == expected_clusters(seen, threshold, use_tracks=True)
    assert archive.members != expected_clusters(seen, threshold)


def _early(seen: list[Sighting]) -> tuple[dict[str, Any], list[Sighting]]:
    first, last = seen[len(seen) // 5].time, seen[len(seen) // 2].time
    chosen = [each for each in seen if first <= each.time < last]
    return {"create_time__gte": first.isoformat(), "create_time__lt": last.isoformat()}, chosen


def _cameras(seen: list[Sighting]) -> tuple[dict[str, Any], list[Sighting]]:
    cameras = sorted({each.source for each in seen})[:2]
    return {"sources": [*cameras, "nowhere"]}, [each for each in seen if each.source in cameras]


def _ids(seen: list[Sighting]) -> tuple[dict[str, Any], list[Sighting]]:
    return {"event_ids": [each.object_id for each in seen[::3]]}, seen[::3]


def _tracks(seen: list[Sighting]) -> tuple[dict[str, Any], list[Sighting]]:
    tracks = sorted({each.track_id for each in seen})[::2]
    return {"track_ids": tracks}, [each for each in seen if each.track_id in tracks]


def _several(seen: list[Sighting]) -> tuple[dict[str, Any], list[Sighting]]:
    times, early = _early(seen)
    cameras, filmed = _cameras(seen)
    both = {each.object_id for each in filmed} & {each.object_id for each in early}
    return {**times, **cameras}, [each for each in seen if each.object_id in both]


@pytest.mark.parametrize("choose", [_early, _cameras, _ids, _tracks, _several], ids=lambda f: f.__name__[1:])
@pytest.mark.parametrize("use_tracks", [False, True])
async def test_filters_cluster_the_chosen_objects_alone(stage: Stage, choose: Any, use_tracks: bool) -> None:
    filters, chosen = choose(stage.seen("initech"))
    archive = await stage.run(
        f"filter-{choose.__name__}-{use_tracks}",
        "initech",
        threshold=0.65,
        filters=filters,
        use_track_info=use_tracks,
    )
    assert archive.members == expected_clusters(chosen, 0.65, use_tracks=use_tracks)
    counts = archive.manifest["counts"]
    assert counts["selected"] == len(chosen) > 10
    assert counts["filtered_out"] == len(stage.seen("initech")) - len(chosen) > 0


async def test_an_archive_shows_nothing_of_another_account(stage: Stage) -> None:
    archive = await stage.run("mine", "acme", report={"columns": ["source", "user_data", "handler_id"]})
    others = {each.object_id for account in ACCOUNTS[1:] for each in stage.seen(account)}
    assert archive.ids == {each.object_id for each in stage.seen("acme")}
    with zipfile.ZipFile(archive.path) as entries:
        text = b"".join(entries.read(name) for name in entries.namelist()).decode()
    assert not [name for name in (*ACCOUNTS[1:], *others) if name in text]
    # Asking for the ids of others by name finds nothing either.
    task = clustering("theirs", "acme", filters={"event_ids": sorted(others)[:50]})
    await stage.client.submit(task)
    status = await stage.client.ended("theirs", "acme")
    assert status["error"]["code"] == "empty_selection"


async def test_two_accounts_may_use_one_task_id(stage: Stage) -> None:
    tasks = [clustering("same-id", account, threshold=0.6) for account in ACCOUNTS]
    await stage.client.submit(*tasks)
    archives = [await stage.client.archive("same-id", account) for account in ACCOUNTS]
    assert len({archive.path for archive in archives}) == len(ACCOUNTS)
    for account, archive in zip(ACCOUNTS, archives, strict=True):
        assert archive.ids == {each.object_id for each in stage.seen(account)}


async def test_the_same_request_gives_the_same_bytes(stage: Stage, tmp_path: Path) -> None:
    content = {"threshold": 0.5, "filters": {"sources": ["cam0", "cam3"]}}
    first, second = [await stage.run(task_id, "acme", **content) for task_id in ("bytes-1", "bytes-2")]
    for name in ("clusters.jsonl", "report.csv"):
        with zipfile.ZipFile(first.path) as one, zipfile.ZipFile(second.path) as other:
            assert one.read(name) == other.read(name)
    manifests = [dict(archive.manifest) for archive in (first, second)]
    assert [manifest.pop("task_id") for manifest in manifests] == ["bytes-1", "bytes-2"]
    assert json.dumps(manifests[0]) == json.dumps(manifests[1])


async def test_metrics_tell_what_was_taken_in(stage: Stage) -> None:
    await stage.worker.applied(len(stage.records))
    assert stage.worker.records() == {"accepted": len(stage.records), "duplicate": 0, "rejected": 0}
    for kind in ("face", "body"):
        assert stage.worker.sample("objects_total", descriptor_type=kind) == len(stage.records)
        assert stage.worker.sample("links_total", descriptor_type=kind) > 0
