"""Probes and metrics over HTTP, through the states that a service passes."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.messages import Reason
from stream_cluster.sandbox import Broker
from tests.support.client import client_of, clustering
from tests.support.kafka import eventually
from tests.support.service import (
    EngineGate,
    FeedGate,
    ServiceProcess,
    Topics,
    Worker,
    http_get,
    make_topics,
    overrides_of,
    parse_metrics,
    running_service,
)

LAG = 100


async def _answers(worker: Worker, path: str, status: int, words: str = "") -> None:
    """Wait until a path answers so."""

    async def holds() -> bool:
        found, text = await worker.get(path)
        return found == status and words in text

    await eventually(holds, 20, f"{path} to answer {status} {words}")


async def test_alive_but_not_ready_while_there_is_no_broker(broker: Broker, tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{reserved.getsockname()[1]}"
    changes = {"kafka__bootstrap_servers": nobody, "kafka__connect_timeout_s": 30}
    async with running_service(broker, Topics.named("no"), tmp_path, wait=False, **changes) as worker:
        await worker.until(lambda: worker.service.http.port, 10, "a port")
        await _answers(worker, "/livez", 200)
        await _answers(worker, "/readyz", 503, "connecting to Kafka")
        assert parse_metrics((await worker.get("/metrics"))[1])["stream_cluster_ready", frozenset()] == 0
        await worker.stop()
    assert (await worker.get("/livez"))[0] == 0


async def test_ready_follows_the_lag(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "lag")
    records = list(generate_events(GenerateOptions(events=LAG * 3, dim=8)))
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, http__ready_max_lag_records=LAG) as worker,
    ):
        assert await worker.get("/readyz") == (200, "ok\n")
        with FeedGate() as gate:
            await client.produce(records[:LAG])
            await worker.until(lambda: gate.held() == LAG, 10, "the records at the gate")
            assert await worker.get("/readyz") == (200, "ok\n")
            await client.produce(records[LAG:])
            await worker.until(lambda: gate.held() == len(records), 10, "all records at the gate")
            await _answers(
                worker, "/readyz", 503, f"partition 0: {len(records)} records behind, {LAG} allowed"
            )
            assert await worker.get("/livez") == (200, "ok\n")
            metrics = parse_metrics((await worker.get("/metrics"))[1])
            assert metrics["stream_cluster_lag_records", frozenset({("partition", "0")})] == len(records)
            assert metrics["stream_cluster_ready", frozenset()] == 0
            gate.open()
            await _answers(worker, "/readyz", 200)
        await worker.applied(len(records))
        metrics = parse_metrics((await worker.get("/metrics"))[1])
        assert metrics["stream_cluster_lag_records", frozenset({("partition", "0")})] == 0
        assert metrics["stream_cluster_ready", frozenset()] == 1


async def test_a_batch_that_stands_still_is_not_alive(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "stall")
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, http__live_stall_s=0.3) as worker,
    ):
        with EngineGate() as gate:
            await client.produce(generate_events(GenerateOptions(events=10, dim=8)))
            await worker.until(gate.held.is_set, 10, "a batch at the gate")
            await _answers(worker, "/livez", 503, "partition 0: a batch has been under way")
            gate.open()
            await _answers(worker, "/livez", 200)


async def test_a_process_is_ready_soon_and_serves_nothing_else(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "probes")
    with ServiceProcess(overrides_of(broker, topics, tmp_path), tmp_path / "log") as process:
        port = process.http_port()

        async def is_ready() -> bool:
            return await http_get(port, "/readyz") == (200, "ok\n")

        await eventually(is_ready, 20, "the process to be ready")
        assert await http_get(port, "/livez") == (200, "ok\n")
        assert (await http_get(port, "/"))[0] == 404
        assert (await http_get(port, "/state"))[0] == 404


# What dashboards and alerts are made from: (name, labels). A name that goes or changes breaks them.
FAMILIES = {
    "stream_cluster_build_info": {"version"},
    "stream_cluster_records_total": {"result"},
    "stream_cluster_rejections_total": {"reason"},
    "stream_cluster_objects_total": {"descriptor_type"},
    "stream_cluster_links_total": {"descriptor_type"},
    "stream_cluster_dead_letters_total": set(),
    "stream_cluster_batch_records_count": set(),
    "stream_cluster_batch_duration_seconds_count": set(),
    "stream_cluster_stage_seconds_total": {"stage"},
    "stream_cluster_event_lag_seconds_count": set(),
    "stream_cluster_lag_records": {"partition"},
    "stream_cluster_lag_seconds": {"partition"},
    "stream_cluster_rows": {"descriptor_type"},
    "stream_cluster_matcher_bytes": {"descriptor_type"},
    "stream_cluster_spaces": {"engine"},
    "stream_cluster_link_recall": {"descriptor_type"},
    "stream_cluster_recall_sample_links_total": {"descriptor_type"},
    "stream_cluster_recall_sample_links_found_total": {"descriptor_type"},
    "stream_cluster_tasks_total": {"status"},
    "stream_cluster_tasks_running": set(),
    "stream_cluster_tasks_waiting": set(),
    "stream_cluster_task_duration_seconds_count": {"status"},
    "stream_cluster_rebalances_total": set(),
    "stream_cluster_partitions": set(),
    "stream_cluster_paused_partitions": set(),
    "stream_cluster_ready": set(),
    "process_resident_memory_bytes": set(),
}


async def test_metrics_have_their_names_and_never_an_account(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "metrics")
    accounts = ("secret-account", "other-account")
    options = GenerateOptions(events=300, people=30, dim=16, accounts=accounts, descriptor="both")
    async with client_of(broker, topics) as client, running_service(broker, topics, tmp_path) as worker:
        await client.produce(generate_events(options))
        await worker.applied(300)
        await client.submit(clustering("good", accounts[0]), clustering("empty", "nobody"))
        await client.archive("good", accounts[0])
        await client.ended("empty", "nobody")
        for status in ("done", "failed"):
            await worker.until(
                lambda status=status: worker.sample("tasks_total", status=status) == 1, 5, f"one {status}"
            )
        code, text = await worker.get("/metrics")
    assert code == 200
    metrics = parse_metrics(text)
    labels: dict[str, set[str]] = {}
    for name, pairs in metrics:
        labels.setdefault(name, set()).update(label for label, _ in pairs)
    for name, expected in FAMILIES.items():
        assert labels.get(name) == expected, name
    assert not re.search("account|nobody|cam0", text)

    def value(name: str, **of: str) -> float:
        return metrics[f"stream_cluster_{name}", frozenset(of.items())]

    reasons = {dict(pairs)["reason"] for name, pairs in metrics if name == "stream_cluster_rejections_total"}
    assert reasons == {reason.value for reason in Reason}
    assert value("rows", descriptor_type="face") == value("rows", descriptor_type="body") == 300
    assert value("matcher_bytes", descriptor_type="face") >= 300 * 16
    assert value("spaces", engine="exact") == 4
    assert value("event_lag_seconds_count") == 300
    assert value("task_duration_seconds_count", status="done") == 1
    assert value("link_recall", descriptor_type="face") == 1
    assert (value("ready"), value("partitions"), value("tasks_running"), value("tasks_waiting")) == (
        1,
        1,
        0,
        0,
    )
    for stage in ("decode", "match", "commit"):
        assert value("stage_seconds_total", stage=stage) > 0
