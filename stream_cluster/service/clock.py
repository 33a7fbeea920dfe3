"""The time of day, as the service believes it: a wall clock that jumps is not followed at once.

What is deleted by age is gone for good, brokers refuse records that are dated far in the future, and a task
without a bound reads what is older than itself. So for an hour after a jump time goes on as it did before, by
the monotonic clock, and a person or NTP can put the wall clock right. After the hour it is believed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stream_cluster.service.logs import get_logger

_log = get_logger(__name__)

JUMP_S = 600.0
"""Against the monotonic clock. NTP steers by less than half a millisecond a second, far from this."""
HOLD_S = 3600.0
"""How long a jump is not followed."""


class SteadyClock:
    """The wall clock without its jumps. Thread-safe."""

    def __init__(self, wall_s: Callable[[], float], monotonic_s: Callable[[], float]) -> None:
        """The clocks to read, in seconds."""
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s
        self._offset_s = wall_s() - monotonic_s()
        """Of the wall clock from the monotonic one, when it was last believed."""
        self._jumped_at: float | None = None
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        wall_s, monotonic_s = self._wall_s(), self._monotonic_s()
        with self._lock:
            if self._believes(wall_s - monotonic_s, monotonic_s):
                return int(wall_s * 1e6)
            return int((monotonic_s + self._offset_s) * 1e6)

    def _believes(self, offset_s: float, now_s: float) -> bool:
        jump_s = offset_s - self._offset_s
        if abs(jump_s) <= JUMP_S:
            if self._jumped_at is not None:
                _log.info("clock_steady")
            self._jumped_at = None
            # What NTP steers adds up over weeks.
            self._offset_s = offset_s
            return True
        if self._jumped_at is None:
            self._jumped_at = now_s
            _log.warning("clock_jumped", jump_s=round(jump_s), not_followed_s=HOLD_S)
        if now_s - self._jumped_at < HOLD_S:
            return False
        _log.warning("clock_believed", jump_s=round(jump_s))
        self._jumped_at = None
        self._offset_s = offset_s
        return True


_clock = SteadyClock(time.time, time.monotonic)


def now_us() -> int:
    """The present in microseconds since the epoch."""
    return _clock.now_us()


def now_ms() -> int:
    """The present in milliseconds since the epoch, as records carry it."""
    return now_us() // 1000
