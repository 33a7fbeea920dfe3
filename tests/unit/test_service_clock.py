"""The wall clock is believed unless it jumps."""

from __future__ import annotations

import pytest

from stream_cluster.service.clock import HOLD_S, JUMP_S, SteadyClock

YEAR_S = 365 * 86400
START_S = 1_800_000_000.0


class _Clocks:
    def __init__(self) -> None:
        self.wall_s, self.monotonic_s = START_S, 100.0
        self.steady = SteadyClock(lambda: self.wall_s, lambda: self.monotonic_s)

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds

    def now_s(self) -> float:
        return self.steady.now_us() / 1e6


def test_time_that_passes_and_corrections_are_followed():
    clocks = _Clocks()
    clocks.pass_by(YEAR_S)
    assert clocks.now_s() == START_S + YEAR_S
    for _ in range(5):
        clocks.wall_s += JUMP_S - 1
        assert clocks.now_s() == clocks.wall_s


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S])
def test_after_a_jump_time_goes_on_as_before_until_the_clock_is_back(jump_s):
    clocks = _Clocks()
    clocks.wall_s += jump_s
    assert clocks.now_s() == START_S
    clocks.pass_by(HOLD_S - 1)
    assert clocks.now_s() == START_S + HOLD_S - 1
    clocks.wall_s -= jump_s
    assert clocks.now_s() == clocks.wall_s


def test_a_clock_that_stays_is_believed_in_the_end():
    clocks = _Clocks()
    clocks.wall_s += YEAR_S
    assert clocks.now_s() == START_S
    clocks.pass_by(HOLD_S)
    assert clocks.now_s() == clocks.wall_s == START_S + YEAR_S + HOLD_S
    clocks.pass_by(60)
    assert clocks.now_s() == clocks.wall_s
    clocks.wall_s -= YEAR_S
    assert clocks.now_s() == clocks.wall_s + YEAR_S
