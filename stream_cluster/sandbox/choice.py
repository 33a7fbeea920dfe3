"""Which broker it will be: the first way that is open on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from stream_cluster.errors import BrokerUnavailable, ConfigError
from stream_cluster.sandbox.broker import Broker, BrokerOptions, Report, RouteClosed
from stream_cluster.sandbox.container import require_engine, start_container
from stream_cluster.sandbox.external import ADDRESS_VARIABLE, start_external
from stream_cluster.sandbox.jars import KAFKA_VERSION, require_jars_or_maven
from stream_cluster.sandbox.local import start_local_broker
from stream_cluster.sandbox.mock import start_mock

Route = Callable[[BrokerOptions, Report], Broker]
"""Starts a broker one way. Raises RouteClosed when that way is not open here."""


@dataclass(frozen=True, slots=True)
class Routes:
    """The ways to a broker, in the order in which they are tried."""

    external: Route = start_external
    docker: Route = start_container
    maven: Route = start_local_broker
    mock: Route = start_mock

    def named(self, *, allow_mock: bool) -> list[tuple[str, Route]]:
        """Name and function of each way that may be tried."""
        real = [
            (f"the address in {ADDRESS_VARIABLE}", self.external),
            ("Docker", self.docker),
            ("Java and Maven", self.maven),
        ]
        return [*real, ("librdkafka's mock cluster", self.mock)] if allow_mock else real


def to_stderr(line: str) -> None:
    """A `Report` that writes to standard error."""
    sys.stderr.write(f"sandbox: {line}\n")


def start_broker(
    *,
    allow_mock: bool = False,
    options: BrokerOptions | None = None,
    report: Report = to_stderr,
    routes: Routes | None = None,
) -> Broker:
    """A broker that serves: use it in a `with` statement, or call `stop()`.

    Tried in this order: the address in STREAM_CLUSTER_TEST_BROKER; a Docker engine that answers; Apache
    Kafka from Maven Central; and only with `allow_mock`, librdkafka's mock cluster. The report's last
    line says which one it is.

    Raises BrokerUnavailable that lists what was tried and why each failed, ConfigError for a wrong address.
    """
    options = options or BrokerOptions()
    closed: list[str] = []
    for name, route in (routes or Routes()).named(allow_mock=allow_mock):
        try:
            broker = route(options, report)
        except RouteClosed as reason:
            closed.append(f"{name}: {reason}")
        else:
            report(f"broker is {broker}")
            return broker
    raise BrokerUnavailable("no Kafka broker to be had:\n" + "\n".join(f"  - {line}" for line in closed))


def preview() -> str:
    """Which way `start_broker` would go first, found out without starting anything; for a person."""
    reasons: list[str] = []
    try:
        start_external(BrokerOptions(), lambda _: None)
        return f"the address in {ADDRESS_VARIABLE}"
    except RouteClosed as reason:
        reasons.append(str(reason))
    except (BrokerUnavailable, ConfigError) as error:
        return f"none: {error}"
    for require, text in (
        (require_engine, "a container, through the Docker engine"),
        (require_jars_or_maven, f"Apache Kafka {KAFKA_VERSION} as a local process"),
    ):
        try:
            require()
            return text
        except RouteClosed as reason:
            reasons.append(str(reason))
    return "none: " + "; ".join(reasons)
