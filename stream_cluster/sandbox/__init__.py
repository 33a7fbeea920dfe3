"""Brokers to develop and test against: one launcher that finds a Kafka, or starts one, and says which.

Used by `make demo`, the tests and the benchmarks; the service itself never imports it.
"""

from __future__ import annotations

from stream_cluster.sandbox.broker import Broker, BrokerKind, BrokerOptions
from stream_cluster.sandbox.choice import preview, start_broker
from stream_cluster.sandbox.local import LocalBroker, start_local_broker

__all__ = [
    "Broker",
    "BrokerKind",
    "BrokerOptions",
    "LocalBroker",
    "preview",
    "start_broker",
    "start_local_broker",
]
