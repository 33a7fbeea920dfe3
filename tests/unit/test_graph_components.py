from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.errors import Cancelled
from stream_cluster.graph import components
from stream_cluster.graph.components import connected_components, track_pairs
from stream_cluster.model import Interrupt


def rows(*numbers):
    return np.array(numbers, np.uint32)


def test_components_are_numbered_in_the_order_of_their_lowest_row():
    labels = connected_components(7, [(rows(4, 1), rows(6, 5)), (rows(5), rows(3))])
    assert labels.dtype == np.int32
    assert labels.tolist() == [0, 1, 2, 1, 3, 1, 3]


def test_rows_without_a_pair_are_components_of_their_own():
    assert connected_components(3, []).tolist() == [0, 1, 2]
    assert connected_components(3, [(rows(), rows())]).tolist() == [0, 1, 2]
    assert connected_components(0, []).tolist() == []


def test_repeated_pairs_and_loops_change_nothing():
    labels = connected_components(4, [(rows(1, 1, 1, 2, 3), rows(1, 2, 2, 1, 3))])
    assert labels.tolist() == [0, 1, 1, 2]


def test_a_row_beyond_the_space_is_refused():
    with pytest.raises(ValueError, match="found row 3, expected rows below 3"):
        connected_components(3, [(rows(0), rows(3))])


def test_a_long_chain_is_one_component():
    n = 100_000
    order = np.random.default_rng(0).permutation(n).astype(np.uint32)
    assert connected_components(n, [(order[:-1], order[1:])]).max() == 0


def test_components_of_many_pairs_are_joined_block_by_block(monkeypatch):
    random = np.random.default_rng(3)
    pairs = [(random.integers(500, size=n).astype(np.uint32),) * 2 for n in (90, 1)]
    pairs = [(a, random.permutation(500)[: len(b)].astype(np.uint32)) for a, b in [*pairs, pairs[0]]]
    expected = connected_components(500, pairs)
    monkeypatch.setattr(components, "_BLOCK_PAIRS", 7)
    assert connected_components(500, pairs).tolist() == expected.tolist()
    assert 300 < expected.max() < 499


def test_a_request_to_stop_is_heeded_between_two_blocks(monkeypatch):
    monkeypatch.setattr(components, "_BLOCK_PAIRS", 1)
    interrupt = Interrupt()
    interrupt.cancel()
    with pytest.raises(Cancelled):
        connected_components(3, [(rows(0, 1), rows(1, 2))], interrupt)


def test_members_of_a_track_are_chained_and_rows_without_one_left_out():
    a, b = track_pairs(np.array([3, -1, 0, 3, 0, -1, 3, 8]))
    assert (a.dtype, b.dtype) == (np.uint32, np.uint32)
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 3), (2, 4), (3, 6)]


@pytest.mark.parametrize("tracks", [[], [-1, -1], [0, 1, 2]])
def test_tracks_without_two_members_give_no_pairs(tracks):
    a, b = track_pairs(np.array(tracks, np.int32))
    assert len(a) == len(b) == 0
