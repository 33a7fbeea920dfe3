"""Log lines: one JSON object each, and libraries that do not repeat themselves."""

from __future__ import annotations

import json
import logging

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, GroupCoordinatorNotAvailableError

from stream_cluster.config.settings import LogSettings
from stream_cluster.service.logs import configure_logs, get_logger


@pytest.fixture(autouse=True)
def restore_logging():
    root, kafka = logging.getLogger(), logging.getLogger("aiokafka")
    before = root.handlers[:], root.level, kafka.level
    yield
    root.handlers[:], root.level, kafka.level = before


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_an_event_name_with_fields(capsys):
    configure_logs(LogSettings())
    get_logger("stream_cluster.service.app").info("service_starting", http_port=1)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "service_starting", "level": "info", "module": "service.app", "http_port": 1}


def test_a_lower_severity_is_not_written(capsys):
    configure_logs(LogSettings(level="warning"))
    get_logger("x").info("quiet")
    get_logger("x").warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_a_librarys_repeated_message_is_written_once(capsys):
    configure_logs(LogSettings())
    for attempt in range(5):
        logging.getLogger("aiokafka").error("cannot connect, attempt %s", attempt)
    logging.getLogger("aiokafka").error("another matter")
    found = lines(capsys)
    assert [line["message"] for line in found] == ["cannot connect, attempt 0", "another matter"]
    assert {(line["event"], line["logger"]) for line in found} == {("library_message", "aiokafka")}


def test_what_the_first_group_of_new_brokers_is_told_is_not_written_but_a_refusal_is(capsys):
    configure_logs(LogSettings())
    coordinator = logging.getLogger("aiokafka.consumer.group_coordinator")
    coordinator.error("Group Coordinator Request failed: %s", GroupCoordinatorNotAvailableError())
    coordinator.error("Group Coordinator Request failed: %s", GroupAuthorizationFailedError("faces"))
    (line,) = lines(capsys)
    assert "GroupAuthorizationFailedError" in line["message"]
