"""The wall clock is believed unless it jumps."""

from __future__ import annotations

import pytest

from stream_cluster.service.clock import HOLD_S, JUMP_S, ClockWatch

YEAR_S = 365 * 86400


class _Clocks:
    def __init__(self) -> None:
        self.wall_s, self.monotonic_s = 1.8e9, 100.0

    def watch(self) -> ClockWatch:
        return ClockWatch(lambda: round(self.wall_s * 1e6), lambda: self.monotonic_s)

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


def test_time_that_passes_and_small_corrections_are_steady():
    clocks = _Clocks()
    watch = clocks.watch()
    clocks.pass_by(YEAR_S)
    clocks.wall_s += JUMP_S - 1
    assert watch.is_steady()


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S])
def test_after_a_jump_the_clock_is_not_believed_until_it_is_back(jump_s):
    clocks = _Clocks()
    watch = clocks.watch()
    clocks.wall_s += jump_s
    assert not watch.is_steady()
    clocks.pass_by(HOLD_S - 1)
    assert not watch.is_steady()
    clocks.wall_s -= jump_s
    assert watch.is_steady()


def test_a_clock_that_stays_is_accepted_in_the_end():
    clocks = _Clocks()
    watch = clocks.watch()
    clocks.wall_s += YEAR_S
    assert not watch.is_steady()
    clocks.pass_by(HOLD_S)
    assert watch.is_steady()
    clocks.pass_by(60)
    assert watch.is_steady()
    clocks.wall_s -= YEAR_S
    assert not watch.is_steady()
