"""`python -m stream_cluster.sandbox`: a broker in the foreground, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from stream_cluster.errors import BrokerUnavailable, ConfigError
from stream_cluster.sandbox.broker import BrokerOptions, RouteClosed
from stream_cluster.sandbox.choice import preview, start_broker, to_stderr
from stream_cluster.sandbox.jars import ensure_jars, find_java


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 when stopped by a person or when prepared, 1 when there is no broker."""
    parser = argparse.ArgumentParser(
        prog="python -m stream_cluster.sandbox",
        description="Starts a Kafka broker for development, prints its address and stops it on Ctrl-C.",
    )
    parser.add_argument(
        "--prepare", action="store_true", help="only download what a local Kafka needs, then end"
    )
    parser.add_argument(
        "--allow-mock",
        action="store_true",
        help="take librdkafka's mock cluster when no real broker is there",
    )
    parser.add_argument("--brokers", type=int, default=1, metavar="N", help="number of brokers (default 1)")
    chosen = parser.parse_args(arguments)
    if chosen.brokers < 1:
        parser.error("--brokers must be at least 1")
    if chosen.prepare:
        return _prepare()
    # Also when the shell that started this in the background had set SIGINT to be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _serve(allow_mock=chosen.allow_mock, options=BrokerOptions(brokers=chosen.brokers))
    except KeyboardInterrupt:
        to_stderr("stopped")
        return 0
    except (BrokerUnavailable, ConfigError) as error:
        to_stderr(str(error))
        return 1


def _serve(*, allow_mock: bool, options: BrokerOptions) -> int:
    with start_broker(allow_mock=allow_mock, options=options) as broker:
        sys.stdout.write(f"{broker.bootstrap_servers}\n")
        sys.stdout.flush()
        while True:
            time.sleep(0.5)
            broker.check()


def _prepare() -> int:
    try:
        find_java()
        to_stderr(f"Kafka's jars are in {ensure_jars(to_stderr)}")
    except RouteClosed as reason:
        to_stderr(f"no local Kafka: {reason}")
        to_stderr(f"what would be used instead: {preview()}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
