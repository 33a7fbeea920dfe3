"""What every sandbox broker has in common, whatever it runs on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Literal, Self

BrokerKind = Literal["external", "docker", "maven", "mock"]
"""external: an address somebody gave; docker: a container; maven: Apache Kafka as a local process from
Maven Central's jars; mock: librdkafka's mock cluster inside this process."""

Report = Callable[[str], None]
"""Called with one finished line of text for a person: what is being tried, downloaded, or was started."""

MIB = 1024 * 1024


class RouteClosed(Exception):
    """One way to a broker is not open on this machine; the message says why. The next way is tried."""


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How a broker is to be started. An external broker is used as it is, whatever stands here."""

    brokers: int = 1
    """Number of brokers, each of which is a controller too. Replication factors are min(3, brokers)."""

    message_max_bytes: int = 16 * MIB
    """Largest record batch the brokers accept, in bytes (Kafka's `message.max.bytes`)."""

    heap_max_mib: int = 384
    """Largest Java heap of one broker, in MiB."""

    start_timeout_s: float = 60.0
    """How long the brokers may take until they serve, in seconds."""

    extra_listeners: Mapping[str, str] = field(default_factory=dict)
    """Further listeners: name to security protocol, such as {"SECURE": "SASL_SSL"}. Each gets a free port,
    see `LocalBroker.addresses`. Their keys and JAAS settings go into `extra_properties`."""

    advertised: Mapping[str, str] = field(default_factory=dict)
    """host:port that clients of a listener are told to use instead of its own, such as that of a proxy.
    For one broker."""

    extra_properties: Mapping[str, str] = field(default_factory=dict)
    """Lines of server.properties; they win over those of the launcher."""

    def __post_init__(self) -> None:
        if self.brokers < 1:
            raise ValueError(f"brokers must be at least 1, found {self.brokers}")
        if self.message_max_bytes < 1024:
            raise ValueError(f"message_max_bytes must be at least 1024, found {self.message_max_bytes}")
        reserved = {"PLAINTEXT", "CONTROLLER"} & {name.upper() for name in self.extra_listeners}
        if reserved:
            raise ValueError(f"extra_listeners: the launcher has a listener {sorted(reserved)[0]} of its own")


class Broker(ABC):
    """Running brokers. A context manager that stops them at its end, unless they are external."""

    kind: ClassVar[BrokerKind]

    def __init__(self, bootstrap_servers: str, description: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        """host:port, or several joined by commas; speaks plain text without authentication."""
        self.description = description
        """What runs, for a person: product, version, how it was started."""

    @property
    def is_real(self) -> bool:
        """Whether this is a Kafka broker that keeps data and speaks the whole protocol."""
        return self.kind != "mock"

    def check(self) -> None:
        """Raise `BrokerUnavailable` when a process that ought to run has ended by itself."""
        return

    @abstractmethod
    def stop(self) -> None:
        """Stop the brokers and remove their data. Safe to call again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __str__(self) -> str:
        return f"{self.kind}: {self.description} at {self.bootstrap_servers}"
