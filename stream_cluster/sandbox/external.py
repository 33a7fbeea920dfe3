"""A broker whose address somebody gave in the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import ClassVar

from stream_cluster.errors import BrokerUnavailable, ConfigError
from stream_cluster.sandbox.broker import Broker, BrokerKind, BrokerOptions, Report, RouteClosed

ADDRESS_VARIABLE = "STREAM_CLUSTER_TEST_BROKER"
"""Environment variable with the address of a broker to use: host:port, several joined by commas."""

CONNECT_TIMEOUT_S = 5.0


class ExternalBroker(Broker):
    """Somebody else's broker: used as it is, never stopped."""

    kind: ClassVar[BrokerKind] = "external"

    def stop(self) -> None:
        """Nothing: whoever started it stops it."""
        return


def addresses(text: str) -> list[tuple[str, int]]:
    """The host and port pairs of a comma-joined list. Raises ConfigError when one is not host:port."""
    pairs: list[tuple[str, int]] = []
    for part in text.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"{ADDRESS_VARIABLE}: expected host:port, found {part.strip()!r}")
        pairs.append((host.strip("[]"), int(port)))
    return pairs


def start_external(
    options: BrokerOptions, report: Report, *, environ: Mapping[str, str] | None = None
) -> Broker:
    """The broker of the environment variable.

    Raises RouteClosed when the variable is not set, ConfigError when it is no address, and
    BrokerUnavailable when nothing listens there: whoever names a broker does not want another one.
    """
    text = (os.environ if environ is None else environ).get(ADDRESS_VARIABLE, "").strip()
    if not text:
        raise RouteClosed(f"{ADDRESS_VARIABLE} is not set")
    reasons: list[str] = []
    for address in addresses(text):
        try:
            socket.create_connection(address, CONNECT_TIMEOUT_S).close()
        except OSError as error:
            reasons.append(f"{address[0]}:{address[1]}: {error}")
        else:
            if options != BrokerOptions():
                report(f"the broker of {ADDRESS_VARIABLE} is used as it is: broker options do not apply")
            return ExternalBroker(text, f"the broker that {ADDRESS_VARIABLE} names")
    raise BrokerUnavailable(f"{ADDRESS_VARIABLE} is set, but nothing answers there: {'; '.join(reasons)}")
