"""Dashboards and alerts against a real Prometheus, which watches a worker under load on a real broker."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from deploy import build
from deploy.dashboards import empty_when_healthy
from deploy.overview import concrete, draw
from stream_cluster.sandbox import Broker
from tests.support.chart import needs_tools
from tests.support.watched import Watched, selectors_of, until_fires, watched_service

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

OVERVIEW = os.environ.get("STREAM_CLUSTER_OVERVIEW")
"""Where `make overview` wants the picture, which then shows a longer load."""
DASHBOARDS = sorted((build.ROOT / "dashboards").glob("*.json"))
RULES = [
    rule
    for group in yaml.safe_load((build.ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
# The disk of the machine that runs the tests may be full indeed.
OF_THE_MACHINE = {"StreamClusterDiskNearlyFull"}
GRACE_S = yaml.safe_load((build.CHART / "values.yaml").read_text())["terminationGracePeriodSeconds"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    needs_tools("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    async with watched_service(broker, folder, chunks=90 if OVERVIEW else 12) as found:
        yield found


def queries(path: Path) -> list[tuple[str, str]]:
    """(title of the panel, query) of a dashboard."""
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
async def test_every_panel_has_data_or_is_marked_as_empty_when_healthy(watched: Watched, path: Path) -> None:
    healthy = empty_when_healthy()
    found = queries(path)
    assert len(found) >= 10
    problems = {
        title: problem
        for title, expr in found
        if (problem := watched.problem_of(concrete(expr), may_be_empty=expr in healthy))
    }
    assert problems == {}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
async def test_every_alert_is_evaluated_and_sees_its_metrics(watched: Watched, rule: dict[str, str]) -> None:
    assert watched.problem_of(rule["expr"], may_be_empty=True) is None
    selectors = selectors_of(rule["expr"])
    assert selectors
    assert [problem for selector in selectors if (problem := watched.problem_of(selector))] == []


async def test_rejections_and_a_failed_task_fire_their_alerts_and_no_other_does(watched: Watched) -> None:
    await until_fires(
        watched.prometheus,
        {"StreamClusterRejectionBurst", "StreamClusterTaskFailures"},
        besides=OF_THE_MACHINE,
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stream_cluster_lag_records", "stream_cluster_backlog_records"),
        ('result="rejected"', 'result="refused"'),
        ("sum by (le)", "sum by (le"),
    ],
    ids=[
        "a metric that does not exist",
        "a label value that does not exist",
        "a parenthesis that is missing",
    ],
)
async def test_a_broken_query_is_noticed(watched: Watched, old: str, new: str) -> None:
    using = [expr for path in DASHBOARDS for _, expr in queries(path) if old in expr]
    assert using
    for expr in using:
        assert watched.problem_of(concrete(expr)) is None
        assert watched.problem_of(concrete(expr.replace(old, new))) is not None


async def test_the_overview_is_drawn_from_what_prometheus_has(watched: Watched, tmp_path: Path) -> None:
    path = Path(OVERVIEW) if OVERVIEW else tmp_path / "overview.png"
    drawn = draw(watched.prometheus, watched.began, time.time(), path)
    empty = {title for title, series in drawn.items() if series == 0}
    assert empty <= {"Which alerts fire?"}
    assert len(drawn) >= 15
    assert path.read_bytes().startswith(b"\x89PNG")


async def test_the_log_is_quiet_and_every_line_is_an_event_with_fields(watched: Watched) -> None:
    lines = [json.loads(line) for line in watched.service.log().splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    for line in lines:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", line["event"]), line
        assert {"timestamp", "module"} <= line.keys()
    # Of the process, the group, the partitions, the tasks and the backups, which here are two seconds apart;
    # nothing of thousands of records, many of them rejected.
    events = [line["event"] for line in lines]
    assert set(events) - {"backups_removed"} == {
        *("service_starting", "partitions_assigned", "partition_opened", "hnsw_in_use"),
        *("task_read", "task_ended", "archive_removed", "backup_stored"),
    }
    assert len([event for event in events if not event.startswith("backup")]) < 30
    # At most two lines for each backup, and a backup every two seconds at most.
    assert len(events) < 100


async def test_the_log_of_a_task_can_be_followed_by_its_id_and_partition(watched: Watched) -> None:
    lines = [json.loads(line) for line in watched.service.log().splitlines()]
    of_tasks = [line for line in lines if line["event"].startswith(("task_", "archive_"))]
    assert all({"task_id", "partition"} <= line.keys() for line in of_tasks), of_tasks
    of_done = [line["event"] for line in of_tasks if line["task_id"] == "done"]
    assert of_done == ["task_read", "task_ended", "archive_removed"]
    of_partitions = [line for line in lines if line["event"].startswith(("partition_", "hnsw_"))]
    assert all("partition" in line for line in of_partitions), of_partitions


async def test_a_stop_takes_a_fraction_of_the_grace_and_a_worker_that_is_gone_fires_its_alert(
    watched: Watched,
) -> None:
    watched.service.terminate()
    exit_code, seconds = watched.service.wait(GRACE_S)
    assert exit_code == 0
    assert seconds < GRACE_S / 4
    await watched.until_seen('count(ALERTS{alertname="StreamClusterDown", alertstate="firing"})', 1)
