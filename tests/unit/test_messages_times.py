"""Times on the wire and relative to now."""

from __future__ import annotations

import pytest

from stream_cluster.messages import format_time, parse_time, resolve_time
from stream_cluster.messages.times import MAX_TIME_US, MIN_TIME_US

NOW = parse_time("2026-03-31T12:00:00Z")


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_777_629_600_123_000, "2026-05-01T10:00:00.123Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (MIN_TIME_US, "0001-01-01T00:00:00.000Z"),
        (MAX_TIME_US, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_has_one_spelling_and_comes_back(us, text):
    assert format_time(us) == text
    assert parse_time(text) == us


def test_an_offset_is_taken_into_account():
    assert parse_time("2026-05-01T13:00:00+03:00") == parse_time("2026-05-01T10:00:00Z")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("now", "2026-03-31T12:00:00Z"),
        ("now-30s", "2026-03-31T11:59:30Z"),
        ("now-5m", "2026-03-31T11:55:00Z"),
        ("now-3h", "2026-03-31T09:00:00Z"),
        ("now-1d", "2026-03-30T12:00:00Z"),
        ("now-2w", "2026-03-17T12:00:00Z"),
        ("now-1M", "2026-02-28T12:00:00Z"),
        ("now-25M", "2024-02-29T12:00:00Z"),
        ("now-2y", "2024-03-31T12:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_relative_times_follow_the_calendar(value, expected):
    assert resolve_time(value, NOW) == parse_time(expected)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "now+3h",
        "now-h",
        "now-3",
        "now-3H",
        "now-9999y",
        "now-999999999w",
        "2026-01-01",
        "2026-01-01T00:00:00",
    ],
)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ValueError, match="expected"):
        resolve_time(value, NOW)
