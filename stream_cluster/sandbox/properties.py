"""The settings of a local Kafka: one broker and controller per process, small, and quick to start."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stream_cluster.sandbox.broker import MIB, BrokerOptions

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20_000, 32_000


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The ports of one broker, by the name of the listener: PLAINTEXT, CONTROLLER and extra ones."""

    by_listener: Mapping[str, int]

    def address(self, listener: str) -> str:
        """host:port of a listener. Raises KeyError for an unknown one."""
        return f"{HOST}:{self.by_listener[listener]}"


def assign_ports(options: BrokerOptions) -> list[NodePorts]:
    """Free ports for every listener of every broker."""
    names = ["PLAINTEXT", *options.extra_listeners, "CONTROLLER"]
    ports = iter(free_ports(len(names) * options.brokers))
    return [NodePorts({name: next(ports) for name in names}) for _ in range(options.brokers)]


def free_ports(count: int) -> list[int]:
    """Different ports on the loopback interface that nothing listens on.

    They lie below Linux's ephemeral range (32768 and up). A port inside it can be taken by any outgoing
    connection while a killed broker is down, even by the client's own attempt to reach that broker.
    """
    # Not seeded: two test runs beside each other have to get different ports.
    candidates = random.SystemRandom().sample(range(FIRST_PORT, LAST_PORT), 2000)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
    if len(found) < count:
        raise OSError(f"no {count} free ports between {FIRST_PORT} and {LAST_PORT}")
    return found


def server_properties(
    node_id: int, nodes: Sequence[NodePorts], data: Path, options: BrokerOptions
) -> dict[str, str]:
    """The settings of broker `node_id` (from 1) of `nodes`; the options' own properties win."""
    replicas = str(min(3, len(nodes)))
    in_sync = str(1 if len(nodes) < 3 else 2)
    return {
        **_listeners(node_id, nodes, options.extra_listeners, options.advertised),
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(options.message_max_bytes),
        "replica.fetch.max.bytes": str(options.message_max_bytes),
        "socket.request.max.bytes": str(max(100 * MIB, 2 * options.message_max_bytes)),
        "default.replication.factor": replicas,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # One partition each instead of 50: what the first consumer group waits for.
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A killed broker may register again only after its old session has ended.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "400",
        # No heartbeat records in the metadata log of an idle broker.
        "metadata.max.idle.interval.ms": "0",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "log.cleaner.threads": "1",
        # Taken from the heap at start: 128 MiB by default.
        "log.cleaner.dedupe.buffer.size": str(4 * MIB),
        **options.extra_properties,
    }


def _listeners(
    node_id: int, nodes: Sequence[NodePorts], extra: Mapping[str, str], advertised: Mapping[str, str]
) -> dict[str, str]:
    own = nodes[node_id - 1]
    protocols = {"PLAINTEXT": "PLAINTEXT", **extra, "CONTROLLER": "PLAINTEXT"}
    listeners = {name: f"{name}://{own.address(name)}" for name in protocols}
    voters = [f"{number}@{node.address('CONTROLLER')}" for number, node in enumerate(nodes, 1)]
    return {
        "node.id": str(node_id),
        "process.roles": "broker,controller",
        "controller.quorum.voters": ",".join(voters),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listeners": ",".join(listeners.values()),
        "advertised.listeners": ",".join(
            f"{name}://{advertised[name]}" if name in advertised else text
            for name, text in listeners.items()
            if name != "CONTROLLER"
        ),
        "listener.security.protocol.map": ",".join(f"{name}:{value}" for name, value in protocols.items()),
    }


def render(properties: Mapping[str, str]) -> str:
    """The text of a Java properties file. Keys are Kafka's names, so only values need escapes."""
    lines: list[str] = []
    for key, value in properties.items():
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        # A leading blank would be skipped by the reader.
        lines.append(f"{key}={escaped if not escaped.startswith(' ') else chr(92) + escaped}\n")
    return "".join(lines)
