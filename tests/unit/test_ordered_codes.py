"""Codes in another order than the state's: the same ones, in few reads."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from stream_cluster.snapshot.ordered_codes import OrderedCodes


class View:
    """Hands out codes, and notes how many at a time."""

    def __init__(self, codes):
        self.all = codes
        self.reads = []

    def codes(self, space, rows):
        self.reads.append(len(rows))
        return self.all[rows]


@pytest.mark.parametrize(("piece_rows", "reads"), [(1000, [100]), (40, [40, 40, 20]), (1, [10] * 10)])
def test_codes_come_in_order_and_are_read_in_pieces(piece_rows, reads):
    codes = np.random.default_rng(1).integers(-127, 128, (300, 8)).astype(np.int8)
    rows = np.random.default_rng(2).permutation(300)[:150].astype(np.uint32)
    positions = np.random.default_rng(3).permutation(150)[:100]
    view = View(codes)
    selection = SimpleNamespace(space=SimpleNamespace(dim=8), rows=rows)
    ordered = OrderedCodes(view, selection, positions, piece_bytes=piece_rows * 8)
    for begin in range(0, 100, 10):
        assert np.array_equal(ordered.between(begin, begin + 10), codes[rows[positions[begin : begin + 10]]])
    assert view.reads == reads


def test_a_stretch_that_is_longer_than_a_piece_comes_whole_and_going_back_reads_again():
    codes = np.arange(80, dtype=np.int8).reshape(20, 4)
    view = View(codes)
    selection = SimpleNamespace(space=SimpleNamespace(dim=4), rows=np.arange(20))
    ordered = OrderedCodes(view, selection, np.arange(20)[::-1], piece_bytes=12)
    assert np.array_equal(ordered.between(2, 12), codes[::-1][2:12])
    assert np.array_equal(ordered.between(0, 3), codes[::-1][:3])
    assert view.reads == [10, 3]
