"""librdkafka's mock cluster: the real protocol over TCP, inside this process, without a broker.

Seen working with aiokafka: produce, fetch, consumer groups, commits. Not there: transactions, look-ups by
time, the admin client. It keeps 5 MiB a partition, in memory, and creates topics when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from stream_cluster.sandbox.broker import Broker, BrokerKind, BrokerOptions, Report, RouteClosed

START_TIMEOUT_S = 10.0


class MockBroker(Broker):
    """A mock cluster that lives as long as the producer that carries it."""

    kind: ClassVar[BrokerKind] = "mock"

    def __init__(self, producer: Any, bootstrap_servers: str, description: str) -> None:
        super().__init__(bootstrap_servers, description)
        self._producer: Any | None = producer

    def create_topics(self, names: Iterable[str]) -> None:
        """Create topics by asking for them, which stands in for the admin client that is not there."""
        if self._producer is not None:
            for name in names:
                self._producer.list_topics(name, timeout=START_TIMEOUT_S)

    def stop(self) -> None:
        """Let go of the producer; librdkafka then closes the cluster's sockets."""
        self._producer = None


def start_mock(options: BrokerOptions, report: Report) -> Broker:
    """A mock cluster of `options.brokers` brokers. Raises RouteClosed when it cannot be had."""
    try:
        import confluent_kafka  # noqa: PLC0415 - a development dependency
    except ImportError as error:
        raise RouteClosed(f"the confluent-kafka package is not installed ({error})") from error
    if options.extra_listeners or options.extra_properties:
        raise RouteClosed("the mock cluster has no listeners or properties to set, and some were asked for")
    producer = confluent_kafka.Producer(
        {"test.mock.num.brokers": options.brokers, "bootstrap.servers": "mock", "log_level": 0}
    )
    try:
        brokers = producer.list_topics(timeout=START_TIMEOUT_S).brokers.values()
    except confluent_kafka.KafkaException as error:
        raise RouteClosed(f"librdkafka's mock cluster does not answer ({error})") from error
    report("no real broker: this is librdkafka's mock cluster, which keeps 5 MiB a partition in memory")
    return MockBroker(
        producer,
        ",".join(f"{broker.host}:{broker.port}" for broker in sorted(brokers, key=lambda found: found.id)),
        f"librdkafka {confluent_kafka.libversion()[0]} mock cluster in this process, not a real broker",
    )
