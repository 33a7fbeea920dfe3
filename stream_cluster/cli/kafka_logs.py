"""Logs of the Kafka client in short commands: warnings of ours on stderr, none of the library's."""

from __future__ import annotations

import logging

from stream_cluster.config.settings import LogSettings
from stream_cluster.service.logs import configure_logs


def quiet_logs() -> None:
    """Keep stdout for the result, and stderr for what a person can act on."""
    configure_logs(LogSettings(level="warning", format="text"))
    # It reports each failed attempt to connect as an error; the command reports the outcome.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
