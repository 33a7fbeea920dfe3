"""Structured logs: an event name and fields per line, never sentences, never personal data."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from aiokafka.errors import GroupCoordinatorNotAvailableError

from stream_cluster.config.settings import LogSettings

_REPEAT_S = 30.0


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module, bound to `name`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(module=name.removeprefix("stream_cluster."))
    return logger


class _Repeats(logging.Filter):
    """Passes a message of a library once in a while, not at each of its retries."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a message whose template passed within the last `_REPEAT_S` seconds.

        False too for what the first member of the first group of new brokers is told, before it is told
        where they keep groups.
        """
        arguments = record.args if isinstance(record.args, tuple) else ()
        if any(isinstance(argument, GroupCoordinatorNotAvailableError) for argument in arguments):
            return False
        key = record.name, str(record.msg)
        if record.created - self._told.get(key, 0.0) < _REPEAT_S:
            return False
        self._told[key] = record.created
        return True


def _library_message(_: object, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What a library says is a sentence: it becomes a field, under one event name."""
    return {"event": "library_message", "message": event.pop("event"), **event}


def configure_logs(settings: LogSettings) -> None:
    """Send our events and those of the libraries to stderr, in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _library_message, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    # The libraries' own news is only of interest when something is wrong.
    root.setLevel(max(level, logging.WARNING))
    # aiokafka reports each step of an ordinary rebalance or reconnect as a warning or an error; what matters
    # of it is reported by this service itself.
    logging.getLogger("aiokafka").setLevel(logging.ERROR if level > logging.DEBUG else logging.INFO)
