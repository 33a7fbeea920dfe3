"""What the HTTP server serves, and who may read the files that hold personal data."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from tests.support.client import client_of, clustering
from tests.support.service import make_topics, running_service

SERVED = {"/livez", "/readyz", "/metrics"}
OPTIONAL = {"/", "/status"}
"""May be served where they are switched on, and not by default."""


@pytest.fixture
def open_umask() -> Iterator[None]:
    """As of a container whose image says nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


def _served(worker) -> set[str]:
    routes = worker.service.http._runner.app.router.routes()
    return {route.resource.canonical for route in routes}


async def test_http_serves_nothing_but_health_and_metrics(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "http")
    async with running_service(broker, topics, tmp_path) as worker:
        assert worker.service.http._runner.addresses[0][0] == "127.0.0.1"
        assert SERVED <= _served(worker) <= SERVED | OPTIONAL
        for path in ("/", "/status", "/config", "/debug", "/..%2f..%2fetc/passwd", "/metrics/../state"):
            status, text = await worker.get(path)
            assert status in {404, 405} or path == "/metrics/../state", (path, text)


async def test_files_with_personal_data_are_not_for_everybody(
    broker: Broker, tmp_path: Path, open_umask: None
) -> None:
    topics = await make_topics(broker, "files")
    changes = {"matching__engine": "hnsw"}
    async with running_service(broker, topics, tmp_path, **changes) as worker:
        async with client_of(broker, topics) as client:
            await client.produce(generate_events(GenerateOptions(events=60, dim=16)))
            await client.submit(clustering("task", threshold=0.5))
            await client.archive("task")
            modes = _modes(tmp_path)
        await worker.stop()
    modes |= _modes(tmp_path)
    assert any(name.endswith(".zip") for name in modes)
    assert any(name.endswith(".hnsw") for name in modes)
    too_open = {name: oct(mode) for name, mode in modes.items() if mode & 0o137}
    assert not too_open
    state = {name: mode for name, mode in modes.items() if name.startswith("state/")}
    assert {mode for name, mode in state.items() if "partition" in name} == {0o600}


def _modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }
