"""A service under load that a real Prometheus watches."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy import build
from deploy.overview import Prometheus
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from tests.support.client import Client, client_of, clustering
from tests.support.kafka import eventually
from tests.support.service import ServiceProcess, make_topics, overrides_of

PARTITIONS = 2
CHUNK = 200
BAD_SHARE = 0.2
_WAIT_S = 60


@dataclass
class Watched:
    """What a test sees of it."""

    prometheus: Prometheus
    service: ServiceProcess
    client: Client
    began: float
    """Unix time of the first record."""

    def problem_of(self, expr: str, *, may_be_empty: bool = False) -> str | None:
        """What is wrong with a query: it is refused, or it returns nothing. None: it is as it should be."""
        try:
            found = self.prometheus.query(expr)
        except ValueError as error:
            return f"{expr}: {error}"
        # A quantile of no observations is not a number.
        values = [float(series["value"][1]) for series in found]
        if not may_be_empty and not any(value == value for value in values):
            return f"{expr}: returns {values or 'nothing'}"
        return None

    async def load(self, chunks: int) -> None:
        """Send records, broken ones among them, as fast as Prometheus sees them applied."""
        options = GenerateOptions(
            events=chunks * CHUNK,
            people=400,
            dim=64,
            bad_share=BAD_SHARE,
            faults=("bad_field", "zero_vector"),
        )
        records = list(generate_events(options))
        for sent in range(0, len(records), CHUNK):
            await self.client.produce(records[sent : sent + CHUNK])
            await self.until_seen("sum(stream_cluster_records_total)", sent + CHUNK)

    async def until_seen(self, expr: str, least: float) -> None:
        """Return when a query gives at least that."""

        def seen() -> bool:
            found = self.prometheus.query(expr)
            return bool(found) and float(found[0]["value"][1]) >= least

        await eventually(seen, _WAIT_S, f"{expr} >= {least:g}")

    async def run_tasks(self) -> None:
        """One task that is done and whose archive is deleted again, and one that fails."""
        await self.client.submit(clustering("done", threshold=0.6))
        status = await self.client.ended("done", timeout_s=_WAIT_S)
        # One that failed is not counted as done either, and then nothing but its status says so.
        assert status["status"] == "done", status
        # Seen before the next request, so that a wait in vain says which task was not counted.
        await self.until_seen('sum(increase(stream_cluster_tasks_total{status="done"}[5m]))', 0.5)
        await self.client.submit({"task_id": "done", "account_id": "demo", "type": "delete"})
        await self.client.submit(
            clustering("failed", report={"format": "csv", "columns": ["no_such_column"]})
        )
        await self.client.ended("failed", timeout_s=_WAIT_S)
        await self.until_seen('sum(increase(stream_cluster_tasks_total{status="failed"}[5m]))', 0.5)


@asynccontextmanager
async def watched_service(broker: Broker, folder: Path, chunks: int) -> AsyncIterator[Watched]:
    """A worker process after a load of so many chunks and some tasks, with Prometheus beside it."""
    topics = await make_topics(broker, "watched", PARTITIONS)
    port = _free_port()
    changes: dict[str, Any] = {
        "http__port": port,
        "matching__engine": "hnsw",
        "matching__recall_sample_share": 1,
        "backup__directory": str(folder / "backups"),
        "backup__interval_s": 2,
    }
    overrides = overrides_of(broker, topics, folder, **changes)
    async with client_of(broker, topics) as client:
        with _prometheus(folder, port) as prometheus:
            await eventually(prometheus.is_ready, _WAIT_S, "Prometheus to be ready")
            with ServiceProcess(overrides, folder / "service.log") as service:
                watched = Watched(prometheus, service, client, time.time())
                # Everything was there, as zero, before it counts.
                await watched.until_seen("min(stream_cluster_ready)", 1)
                try:
                    await watched.load(chunks)
                    await watched.run_tasks()
                except AssertionError as error:
                    # The folder of the log may be gone when somebody looks.
                    error.add_note(service.log()[-8000:])
                    raise
                yield watched


def rules_without_waiting() -> dict[str, Any]:
    """The alerts, each firing at once rather than after its `for`."""
    rules: dict[str, Any] = yaml.safe_load(
        (build.ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8")
    )
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    return rules


def selectors_of(expr: str) -> set[str]:
    """The metrics of an expression with their matchers, without what is done to them."""
    named = r"\b(?:stream_cluster_[a-z_]+|process_[a-z_]+|up)\b(?:\{[^}]*\})?"
    return set(re.findall(named, expr))


class _prometheus:  # noqa: N801 - used like a function
    """A Prometheus that scrapes one port each second, with the alerts; ended with its block."""

    def __init__(self, folder: Path, target_port: int) -> None:
        self._folder = folder / "prometheus"
        self._folder.mkdir()
        self._port = _free_port()
        (self._folder / "alerts.yaml").write_text(yaml.safe_dump(rules_without_waiting()), encoding="utf-8")
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [
                {"job_name": "stream-cluster", "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}]}
            ],
        }
        (self._folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def __enter__(self) -> Prometheus:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    build.tool("prometheus"),
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return Prometheus(f"http://127.0.0.1:{self._port}")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def until_fires(prometheus: Prometheus, expected: set[str], *, besides: set[str]) -> None:
    """Return when exactly these alerts fire, whatever those `besides` do."""
    found: set[str] = set()

    def matches() -> bool:
        found.clear()
        found.update(prometheus.firing())
        return found - besides == expected

    try:
        await eventually(matches, _WAIT_S, f"alerts {expected}")
    except AssertionError as error:
        raise AssertionError(f"{error}; found {found}") from None
