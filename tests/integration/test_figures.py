"""Figures of clusters through a real broker: warnings in the status, columns of the report, the gauge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stream_cluster.messages import CLUSTER_COLUMNS, encode_object
from stream_cluster.sandbox import Broker
from tests.support.client import client_of, clustering
from tests.support.partitions import message
from tests.support.service import Worker, make_topics, parse_metrics, running_service

AXES = np.eye(8)
GAUGE = "stream_cluster_latest_task_largest_cluster_share"


def lines_of(account: str) -> list[bytes]:
    """Two people of twelve, and one object between them."""
    made = [AXES[0] + 0.05 * AXES[2 + n % 4] for n in range(12)]
    made += [AXES[1] + 0.05 * AXES[2 + n % 4] for n in range(12)]
    made.append(AXES[0] + AXES[1])
    return [
        encode_object(message(n, vector / np.linalg.norm(vector), account=account))
        for n, vector in enumerate(made)
    ]


async def test_a_task_that_chains_says_so_in_its_status_its_report_and_a_gauge(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "figures")
    columns = ["create_time", *CLUSTER_COLUMNS]
    async with client_of(broker, topics) as client, running_service(broker, topics, tmp_path) as worker:
        await client.produce_lines("demo", lines_of("demo"))
        await client.submit(clustering("chained", threshold=0.68, report={"columns": columns}))
        archive = await client.archive("chained")
        status = await client.ended("chained")
        (warning,) = status["warnings"]
        # The status says what the manifest says, and names the cluster and the ends of its bridges.
        assert archive.manifest["warnings"] == [warning]
        assert (warning["code"], warning["cluster"], warning["size"]) == ("large_cluster", 0, 25)
        assert warning["bridges"] == 2
        assert "demo-00024" in warning["objects"]
        assert "demo-00024" in warning["pair"]
        assert warning["pair"][0] in warning["message"]
        # Those before the last one have none.
        assert all(not earlier["warnings"] for earlier in client.statuses("chained")[:-1])
        (cluster,) = archive.clusters
        assert cluster["first_time"] < cluster["last_time"]
        assert archive.manifest["figures"]["largest_share"] == 1
        for row in archive.report:
            assert list(row) == ["cluster", "event_id", *columns]
            assert row["cluster_size"] == "25"
            for name in ("share", "cohesion", "weakest_link", "bridges"):
                assert row[f"cluster_{name}"] == str(cluster[name])
        assert await share_of(worker) == 1

        await client.submit(clustering("apart", threshold=0.75))
        apart = await client.archive("apart")
        assert (await client.ended("apart"))["warnings"] == []
        assert apart.manifest["warnings"] == []
        assert apart.manifest["figures"]["largest_share"] == 12 / 25
        # The latest task counts, not the worst.
        assert await share_of(worker) == 12 / 25


async def share_of(worker: Worker) -> float:
    """The gauge of faces as Prometheus scrapes it."""
    status, text = await worker.get("/metrics")
    assert status == 200
    return parse_metrics(text)[GAUGE, frozenset({("descriptor_type", "face")})]
