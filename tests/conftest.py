"""Fixtures of all suites: the broker of the session, and topics of one's own."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog

from stream_cluster.errors import BrokerUnavailable
from stream_cluster.sandbox import Broker, LocalBroker, preview, start_broker, start_local_broker
from stream_cluster.sandbox.broker import BrokerOptions, RouteClosed
from tests.support import kafka

BROKER_FIXTURES = {"broker", "local_broker"}
_used: list[str] = []


def in_ci() -> bool:
    """Whether a missing broker is a failure rather than a reason to skip."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def pytest_report_header() -> str:
    """The header line: which broker tests would get. None is started unless a test asks for it."""
    return f"broker: {preview()}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which broker the tests really ran on."""
    for line in _used:
        terminalreporter.write_line(f"broker: {line}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a broker, so that `-m "not broker"` leaves it out."""
    for item in items:
        if BROKER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)


def no_broker(reason: Exception) -> None:
    """Fail in CI, skip elsewhere, saying why."""
    if in_ci():
        pytest.fail(f"CI is set, so a real broker is required; {reason}", pytrace=False)
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A real Kafka broker, one for the whole session."""
    try:
        found = start_broker()
    except BrokerUnavailable as reason:
        no_broker(reason)
        return
    _used.append(str(found))
    with found:
        yield found


@pytest.fixture
def local_broker() -> Iterator[LocalBroker]:
    """A Kafka process for one test alone, to be killed, frozen and restarted."""
    try:
        found = start_local_broker(BrokerOptions(extra_listeners={"SECOND": "PLAINTEXT"}), lambda _: None)
    except RouteClosed as reason:
        no_broker(reason)
        return
    with found:
        yield found


@pytest.fixture
def unique_topics(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Gives topic names that no other test and no other run uses: `unique_topics("events")`."""
    test = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name)[:60].strip("-")
    run = uuid.uuid4().hex[:10]
    return lambda name: f"{test}.{run}.{name}"


@pytest.fixture
def new_topic(broker: Broker, unique_topics: Callable[[str], str]) -> Callable[[str, int], Awaitable[str]]:
    """Creates a topic with a unique name on the session's broker: `await new_topic("events", 4)`."""

    async def create(name: str, partitions: int = 1) -> str:
        topic = unique_topics(name)
        await kafka.create_topics(broker.bootstrap_servers, {topic: partitions})
        return topic

    return create


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory in place of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def _logs_of_this_test_only() -> Iterator[None]:
    """A test that configures logs writes to its own captured stderr, which is closed when it ends."""
    yield
    structlog.reset_defaults()
