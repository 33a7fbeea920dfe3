"""Times: RFC 3339 with offset on the wire, int microseconds since the epoch (UTC) inside.

A time filter may also be relative: `now` or `now-<n><unit>` with unit s, m, h, d, w, M (months) or y.
"""

from __future__ import annotations

import calendar
import functools
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

AwareTime = Annotated[datetime, Meta(tz=True)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
MIN_TIME_US = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
MAX_TIME_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

_RELATIVE = re.compile(r"now(?:-([0-9]{1,9})([smhdwMy]))?")
_UNIT_US = {
    unit: seconds * 1_000_000 for unit, seconds in zip("smhdw", (1, 60, 3600, 86400, 604800), strict=True)
}


def to_us(time: datetime) -> int:
    """Microseconds since the epoch of an aware time. Raises ValueError outside years 1 to 9999 in UTC."""
    elapsed = time - _EPOCH
    time_us = (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
    if not MIN_TIME_US <= time_us <= MAX_TIME_US:
        raise ValueError("the time is outside years 1 to 9999 in UTC")
    return time_us


def parse_time(text: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time with offset. Raises ValueError."""
    try:
        return to_us(msgspec.convert(text, AwareTime))
    except msgspec.ValidationError as error:
        raise ValueError(f"found {text[:40]!r}, expected an RFC 3339 time with offset") from error


def format_time(us: int) -> str:
    """RFC 3339 in UTC with `Z`: milliseconds when they are whole, else microseconds.

    Raises OverflowError outside years 1 to 9999.
    """
    day, rest_us = divmod(us, _DAY_US)
    seconds, micros = divmod(rest_us, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    fraction = f"{micros // 1000:03}" if micros % 1000 == 0 else f"{micros:06}"
    return f"{_date_text(day)}T{hour:02}:{minute:02}:{second:02}.{fraction}Z"


@functools.lru_cache(maxsize=4096)
def _date_text(day: int) -> str:
    """Date of a day since the epoch. Reports format millions of times of few days."""
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def resolve_time(value: str, now_us: int) -> int:
    """Microseconds since the epoch of an RFC 3339 time, or of one relative to `now_us`. Raises ValueError.

    Months and years are those of the calendar: a day that the month lacks becomes its last day.
    """
    match = _RELATIVE.fullmatch(value)
    if match is None:
        return parse_time(value)
    if match[1] is None:
        return now_us
    count, unit = int(match[1]), match[2]
    if unit in _UNIT_US:
        time_us = now_us - count * _UNIT_US[unit]
        if time_us < MIN_TIME_US:
            raise ValueError(f"found {value!r}, expected a time after the year 1")
        return time_us
    return _months_before(now_us, count * (12 if unit == "y" else 1), value)


def _months_before(now_us: int, months: int, value: str) -> int:
    now = _EPOCH + timedelta(microseconds=now_us)
    year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
    if year < 1:
        raise ValueError(f"found {value!r}, expected a time after the year 1")
    day = min(now.day, calendar.monthrange(year, month + 1)[1])
    return to_us(now.replace(year=year, month=month + 1, day=day))
