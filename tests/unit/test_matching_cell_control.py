"""The margin that cells are searched with, and the interval of the recall it holds."""

from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.matching.cell_control import MarginControl
from stream_cluster.matching.recall import estimate, wilson


def test_the_margin_is_the_smallest_that_holds_the_target():
    control = MarginControl(0.9)
    random = np.random.default_rng(18)
    needed = [random.uniform(0, 0.2, 10).astype(np.float32) for _ in range(400)]
    control.take(needed, searched=0.1)
    assert 0.9 <= control.recall_of(control.margin).recall <= 0.97
    assert control.recall().recall == pytest.approx(0.5, abs=0.03)
    few = MarginControl(0.9)
    few.take([np.array([0.5], np.float32)], searched=1.0)
    assert few.margin >= 0.5
    widened = few.margin
    few.take([np.array([0.01], np.float32)], searched=1.0)
    assert few.margin == widened, "a small sample narrows nothing"


def test_one_missed_link_of_many_widens_nothing_and_several_do():
    control = MarginControl(0.995)
    control.take([np.full(10, 0.05, np.float32)] * 100, searched=0.1)
    assert control.margin == pytest.approx(0.05, abs=1e-4)
    control.forget()
    hard = np.array([0.2], np.float32)
    control.take([*[np.full(1, 0.01, np.float32)] * 60, hard], searched=0.1)
    assert control.margin == pytest.approx(0.05, abs=1e-4), "one of 61 is chance"
    control.take([hard] * 3, searched=0.1)
    assert control.margin > 0.2


def test_while_rows_move_the_margin_is_what_either_cells_need():
    control = MarginControl(0.9)
    near = [np.full(10, 0.05, np.float32)] * 100
    far = [np.full(10, 0.2, np.float32)] * 100
    control.take(near, searched=0.1)
    control.begin_move(far)
    assert (len(control), control.margin) == (0, pytest.approx(0.2, abs=1e-4))
    control.take(near, searched=None)
    assert control.margin == pytest.approx(0.2, abs=1e-4), "those yet to move say nothing of the moved"
    control.take([np.full(10, 0.3, np.float32)] * 1200, searched=None)
    assert control.margin > 0.3
    assert len(control) == 10 * 1024, "only the latest count"
    control.end_move()
    assert (len(control), control.margin > 0.3) == (0, True)
    control.take(near, searched=None)
    assert control.margin == pytest.approx(0.05, abs=1e-4)
    control.begin_move([])
    control.take([np.full(10, 0.01, np.float32)] * 100, searched=None)
    assert control.margin == pytest.approx(0.05, abs=1e-4), "never narrower than before"


def test_the_interval_is_that_of_wilson_and_wider_where_links_hang_together():
    low, high = wilson(0.9, 100)
    assert (low, high) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    apart = estimate(np.ones(1000, np.int64), np.repeat([1, 0], [990, 10]))
    together = estimate(np.full(10, 100), np.array([100] * 9 + [90]))
    assert apart.recall == together.recall == 0.99
    assert together.high - together.low > apart.high - apart.low
    nothing = estimate(np.zeros(3, np.int64), np.zeros(3, np.int64))
    assert (nothing.low, nothing.high, nothing.recall) == (0.0, 1.0, 1.0)
