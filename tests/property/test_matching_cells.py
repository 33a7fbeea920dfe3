from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.matching.cell_control import WHOLE_MARGIN
from stream_cluster.matching.cell_store import CellStore
from stream_cluster.matching.cell_trainer import CellParameters
from stream_cluster.matching.cells import CellMatcher
from tests.support.descriptors import code_sets, thresholds
from tests.support.oracle import as_set, naive_hits


@settings(deadline=None)
@given(code_sets(max_rows=40), thresholds, st.floats(0, 0.5), st.integers(8, 40), st.data())
def test_hits_in_cells_are_exact_hits_bit_for_bit_and_all_of_them_in_all_cells(
    codes, threshold, margin, first_training, data
):
    """Whatever the cells look like: a hit may be missing, but none is invented or differs in a bit."""
    matcher = CellMatcher(codes.shape[1], CellParameters(first_training=first_training, sample_share=1.0))
    removed = set()
    start = 0
    while start < len(codes):
        stop = data.draw(st.integers(start + 1, len(codes)))
        expected = {
            hit for hit in naive_hits(codes[start:stop], codes[:start], threshold) if hit[1] not in removed
        }
        matcher.control.margin = margin
        found = as_set(matcher.search(codes[start:stop], threshold))
        assert found <= expected
        if threshold < 0:
            assert found == expected
        elif threshold < 1:
            assert as_set(matcher.search_within(codes[start:stop], threshold, WHOLE_MARGIN)) == expected
        matcher.add(codes[start:stop])
        if data.draw(st.booleans()):
            gone = data.draw(st.integers(0, stop - 1))
            matcher.remove(np.array([gone]))
            removed.add(gone)
        assert matcher.wait_until_trained(60) or not matcher.cell_count
        matcher.check()
        start = stop
    matcher.stop()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "move", "remove"]), st.integers(0, 2**30)), max_size=60))
def test_a_store_of_cells_is_what_a_list_of_rows_would_be(changes):
    """Every row keeps its code and its cell through any order of changes, and no cell holds another's row."""
    store = CellStore(6)
    cells = store.take_cells(3)
    model = []
    for number, (change, chance) in enumerate(changes):
        row = chance % len(model) if model else 0
        cell = cells[chance % 3]
        if change == "add":
            added = np.full((chance % 70 + 1, 6), number % 127 + 1, np.int8)
            store.append(added, np.repeat(cell, len(added)))
            model += [(number % 127 + 1, int(cell))] * len(added)
        elif change == "move" and model:
            store.move(np.array([row]), np.array([cell]))
            if model[row] is not None:
                model[row] = (model[row][0], int(cell))
        elif model:
            store.remove(np.array([row]))
            model[row] = None
    rows = np.arange(len(model))
    assert store.gather(rows)[:, 0].tolist() == [0 if one is None else one[0] for one in model]
    for cell in cells.tolist():
        assert sorted(store.rows_of(cell).tolist()) == [
            row for row, one in enumerate(model) if one is not None and one[1] == cell
        ]
    assert store.sizes.sum() == sum(one is not None for one in model)
