"""Whether the wall clock can be believed.

What is deleted by age is gone for good, so a clock that jumps must not decide it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stream_cluster.service.logs import get_logger
from stream_cluster.service.statuses import now_us

_log = get_logger(__name__)

JUMP_S = 600.0
"""Against the monotonic clock. NTP steers by less than half a millisecond a second, far from this."""
HOLD_S = 3600.0
"""For so long after a jump nothing is deleted by age, so that a person or NTP can put the clock right."""


class ClockWatch:
    """Compares the wall clock with the monotonic one, since the start or the last jump that was accepted."""

    def __init__(
        self, wall_us: Callable[[], int] | None = None, monotonic_s: Callable[[], float] | None = None
    ) -> None:
        """The clocks are the system's unless given."""
        self._wall_us = wall_us or now_us
        self._monotonic_s = monotonic_s or time.monotonic
        self._offset_s = self._now_offset_s()
        self._jumped_at: float | None = None

    def is_steady(self) -> bool:
        """False from the moment a jump is noticed until the clock is back, or `HOLD_S` have passed."""
        jump_s = self._now_offset_s() - self._offset_s
        if abs(jump_s) <= JUMP_S:
            if self._jumped_at is not None:
                self._jumped_at = None
                _log.info("clock_steady", jump_s=round(jump_s))
            return True
        now = self._monotonic_s()
        if self._jumped_at is None:
            self._jumped_at = now
            _log.warning("clock_jumped", jump_s=round(jump_s), deletions_wait_s=HOLD_S)
        elif now - self._jumped_at >= HOLD_S:
            self._offset_s += jump_s
            self._jumped_at = None
            _log.warning("clock_accepted", jump_s=round(jump_s))
            return True
        return False

    def _now_offset_s(self) -> float:
        return self._wall_us() / 1e6 - self._monotonic_s()
