"""Fixtures of the fault matrix, and the record of what its tests find."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_cluster.sandbox import Broker
from tests.faults.record import Row, write_rows
from tests.faults.stream import Stream, make_stream
from tests.support.s3 import S3Server, s3_server
from tests.support.shim import Shim

_HERE = Path(__file__).parent
_ROWS = pytest.StashKey[list[Row]]()
_BEGAN = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--write-faults FILE` writes what a run of all tests found."""
    parser.addoption("--write-faults", type=Path, help="write the findings to this JSON file if all passed")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is found yet."""
    config.stash[_ROWS] = []
    config.stash[_BEGAN] = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and those of the short part."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
            mark = item.get_closest_marker("fault")
            assert mark is not None, f"{item.nodeid}: no fault mark"
            # All cases, or those that it names.
            short = mark.kwargs.get("short", False)
            if short is True or (short and item.callspec.id in short):
                item.add_marker(pytest.mark.faults_short)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep the findings of a test that passed."""
    report = yield
    row = getattr(item, "funcargs", {}).get("row")
    if row is not None and report.when == "call" and report.passed:
        item.config.stash[_ROWS].append(row)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the findings, if asked to."""
    path = session.config.getoption("--write-faults", None)
    rows = session.config.stash.get(_ROWS, [])
    if path is not None and exitstatus == 0 and rows:
        write_rows(path, rows, time.monotonic() - session.config.stash[_BEGAN])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The totals."""
    rows = terminalreporter.config.stash.get(_ROWS, [])
    totals = sum((row.counts for row in rows), start=Row("").counts)
    if rows:
        terminalreporter.write_line(
            f"faults: {len(rows)} cases, "
            + ", ".join(f"{name} {count}" for name, count in totals.items())
            + f", lost {totals['lost']}, duplicated {totals['duplicated']}"
        )


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """Takes the findings of a test."""
    return Row(f"{request.path.name}::{request.node.originalname}")


@pytest.fixture(scope="session")
def stream(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """Records on the session's broker, and the archive of a service that nothing happened to."""
    return asyncio.run(make_stream(broker, tmp_path_factory.mktemp("whole")))


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    """For a clock that jumps and files that cannot be synced."""
    return Shim(tmp_path)


@pytest.fixture
def bucket() -> Iterator[S3Server]:
    """An S3 server that fails on demand."""
    with s3_server() as found:
        yield found
