from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.matching import cell_pairs, cell_trainer, cells
from stream_cluster.matching.cell_control import WHOLE_MARGIN
from stream_cluster.matching.cell_pairs import FEWEST_ROWS, CellPairs
from stream_cluster.matching.cell_store import REMOVED, CellStore
from stream_cluster.matching.cell_trainer import GROWTH, CellParameters
from stream_cluster.matching.cell_training import FEWEST_MEMBERS, cell_count, learn_centroids
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.matching.codes import inverse_norms, quantise
from stream_cluster.matching.exact import ExactMatcher, all_pairs
from tests.support.descriptors import people
from tests.support.oracle import as_set, naive_hits

DIM = 32


class Events(list):
    def __call__(self, event, fields):
        self.append((event, dict(fields)))

    @property
    def names(self):
        return [event for event, _ in self]


def matcher_of(codes, *, first_training=500, notify=None, folder=None, **parameters):
    """A matcher that is fed in batches of 250, and whose trainings are waited for."""
    matcher = CellMatcher(
        codes.shape[1],
        CellParameters(first_training=first_training, **parameters),
        notify=notify,
        folder=folder,
    )
    for first in range(0, len(codes), 250):
        matcher.add(codes[first : first + 250])
        matcher.wait_until_trained(60)
    return matcher


def exact_of(codes):
    exact = ExactMatcher(codes.shape[1])
    exact.add(codes)
    return exact


def links_of(matcher, codes, threshold=0.5):
    return as_set(matcher.search(codes, threshold))


def test_with_all_cells_searched_the_hits_are_those_of_plain_loops_bit_for_bit():
    codes = people(1500, DIM, seed=1)
    matcher = matcher_of(codes)
    assert matcher.cell_count > 10
    for threshold in (0.0, 0.3, 0.7):
        found = as_set(matcher.search_within(codes[:50], threshold, WHOLE_MARGIN))
        assert found == naive_hits(codes[:50], codes, threshold)
        assert found == as_set(matcher.search_exactly(codes[:50], threshold))
    assert as_set(matcher.search(codes[:50], -0.2)) == naive_hits(codes[:50], codes, -0.2)
    assert as_set(matcher.search(codes[:50], 1.0)) == set()


def test_a_narrow_search_finds_fewer_hits_and_none_that_is_wrong():
    codes = people(1500, DIM, seed=2)
    matcher = matcher_of(codes)
    narrow = as_set(matcher.search_within(codes[:200], 0.5, 0.0))
    assert narrow < naive_hits(codes[:200], codes, 0.5)


def test_rows_are_where_they_were_put_through_trainings_and_removals():
    codes = people(4000, DIM, seed=3)
    events = Events()
    matcher = CellMatcher(DIM, CellParameters(first_training=300), notify=events)
    random = np.random.default_rng(3)
    removed = np.zeros(len(codes), np.bool_)
    for first in range(0, len(codes), 200):
        matcher.add(codes[first : first + 200])
        gone = random.integers(0, first + 200, 20)
        matcher.remove(gone)
        removed[gone] = True
        matcher.check()
    assert matcher.wait_until_trained(60)
    matcher.train()
    matcher.check()
    assert len(matcher) == 4000
    assert matcher.store.removed_count == removed.sum()
    expected = np.where(removed[:, None], 0, codes)
    assert np.array_equal(matcher.store.gather(np.arange(4000)), expected)
    assert np.array_equal(matcher.store.gather_norms(np.arange(4000)), inverse_norms(expected))
    assert events.names.count("cells_trained") >= 2
    hits = as_set(matcher.search_within(codes[:100], 0.4, WHOLE_MARGIN))
    assert hits == {hit for hit in naive_hits(codes[:100], codes, 0.4) if not removed[hit[1]]}


def test_cells_are_made_anew_when_the_space_has_grown():
    events = Events()
    codes = people(2500, DIM, seed=4)
    matcher = matcher_of(codes, notify=events)
    trained = [fields["rows"] for event, fields in events if event == "cells_trained"]
    assert trained[0] == 500
    assert trained[1] >= GROWTH * trained[0]
    assert matcher.trained_rows == trained[-1]
    assert matcher.is_settled


def test_while_rows_move_to_new_cells_all_are_found(monkeypatch):
    codes = people(1500, DIM, seed=5)
    matcher = matcher_of(codes)
    monkeypatch.setattr("stream_cluster.matching.cell_trainer._ASSIGNED_AT_ONCE", 256)
    steps = iter(range(100))
    # Told to stop half way: rows are left in old cells and in new ones.
    matcher.train(lambda: len(matcher._sets) > 1 and next(steps) > 2)
    assert not matcher.is_settled
    matcher.check()
    assert as_set(matcher.search_within(codes[:60], 0.3, WHOLE_MARGIN)) == naive_hits(codes[:60], codes, 0.3)
    matcher.add(codes[:100])
    matcher.check()


def test_a_cell_out_of_proportion_is_split(monkeypatch):
    monkeypatch.setattr("stream_cluster.matching.cell_index._SPLIT_ROWS", 100)
    monkeypatch.setattr("stream_cluster.matching.cell_index._SPLIT_TIMES", 2)
    codes = people(2000, DIM, seed=6)
    matcher = matcher_of(codes)
    before = matcher.cell_count
    crowd = np.clip(codes[:1] + np.random.default_rng(6).integers(-30, 30, (900, DIM)), -127, 127)
    for first in range(0, 900, 100):
        matcher.add(crowd[first : first + 100].astype(np.int8))
    matcher.check()
    assert matcher.cell_count > before
    everything = np.concatenate([codes, crowd.astype(np.int8)])
    found = as_set(matcher.search_within(codes[:20], 0.5, WHOLE_MARGIN))
    assert found == naive_hits(codes[:20], everything, 0.5)


def test_equal_rows_do_not_trouble_the_training():
    codes = np.repeat(people(2, DIM, seed=7), 600, axis=0)
    matcher = matcher_of(codes)
    matcher.check()
    assert as_set(matcher.search_within(codes[:2], 0.5, WHOLE_MARGIN)) == naive_hits(codes[:2], codes, 0.5)


def test_zero_rows_are_hits_of_negative_thresholds_only():
    codes = people(800, DIM, seed=8)
    codes[::7] = 0
    matcher = matcher_of(codes)
    assert as_set(matcher.search(codes[:8], -0.1)) == naive_hits(codes[:8], codes, -0.1)
    assert as_set(matcher.search_within(codes[:8], 0.0, WHOLE_MARGIN)) == naive_hits(codes[:8], codes, 0.0)


def test_the_target_is_held_and_measured_with_an_interval():
    codes = people(8000, DIM, seed=9)
    matcher = CellMatcher(DIM, CellParameters(first_training=1000, target_recall=0.98, sample_share=1.0))
    exact = ExactMatcher(DIM)
    true = found = 0
    for first in range(0, len(codes), 400):
        batch = codes[first : first + 400]
        if first >= 4000:
            expected = as_set(exact.search(batch, 0.5))
            hits = as_set(matcher.search(batch, 0.5))
            assert hits <= expected
            true, found = true + len(expected), found + len(hits)
        else:
            list(matcher.search(batch, 0.5))
        matcher.add(batch)
        exact.add(batch)
        matcher.wait_until_trained(60)
    recall = matcher.recall()
    assert found / true >= 0.97
    assert recall.low <= recall.recall <= recall.high
    assert recall.links_true > 500
    counts = matcher.take_counts()
    assert 0 < counts[1] <= counts[0]
    assert matcher.take_counts() == (0, 0)


def test_a_target_beyond_the_budget_is_told_and_held_all_the_same():
    events = Events()
    # Spread evenly over a sphere, nothing is near anything: cells are of no use.
    random = np.random.default_rng(10)
    codes = np.clip(np.rint(random.standard_normal((6000, DIM)) * 30), -127, 127).astype(np.int8)
    matcher = matcher_of(codes, first_training=1000, notify=events, budget_share=0.01, sample_share=1.0)
    for first in range(0, 6000, 500):
        list(matcher.search(codes[first : first + 500], 0.4))
    assert matcher.over_budget
    assert matcher.scanned_share > 0.01
    [fields] = [fields for event, fields in events if event == "cells_over_budget"]
    assert fields["scanned_share"] > 0.01
    expected = naive_hits(codes[:100], codes, 0.4)
    assert len(links_of(matcher, codes[:100], 0.4)) >= 0.97 * len(expected)


def test_only_links_above_the_counted_threshold_decide():
    codes = people(3000, DIM, seed=11)
    low = matcher_of(codes, sample_share=1.0)
    high = matcher_of(codes, sample_share=1.0, counted_cosine=0.8)
    for _ in range(8):
        for matcher in (low, high):
            list(matcher.search(codes[:400], 0.2))
    assert high.control.margin < low.control.margin


def test_without_a_sample_nothing_is_measured():
    codes = people(1500, DIM, seed=12)
    matcher = matcher_of(codes, sample_share=0.0)
    list(matcher.search(codes[:300], 0.5))
    assert matcher.take_counts() == (0, 0)


def test_where_everything_is_alike_a_bounded_number_of_links_is_looked_at(monkeypatch):
    """All pairs are linked: looking at each link of a sample takes longer than the search itself."""
    monkeypatch.setattr(cells, "_MOST_SAMPLE_LINKS", 300)
    monkeypatch.setattr(cell_trainer, "_ENOUGH_LINKS", 300)
    random = np.random.default_rng(23)
    codes = quantise(1 + 0.05 * random.standard_normal((2000, DIM)).astype(np.float32))
    matcher = matcher_of(codes, sample_share=1.0)
    looked_at = []
    needed = matcher.needed

    def counted(codes, hits):
        looked_at.append(len(hits))
        return needed(codes, hits)

    monkeypatch.setattr(matcher, "needed", counted)
    matcher.measure()
    assert sum(looked_at) == 300
    found = as_set(matcher.search(codes[:50], 0.5))
    assert sum(looked_at) == 600
    exact = as_set(matcher.search_exactly(codes[:50], 0.5))
    assert len(exact) == 50 * 2000
    assert found <= exact
    assert len(found) > 0.9 * len(exact)


def test_hits_of_one_search_come_once_though_samples_find_some_again():
    codes = people(3000, DIM, seed=13)
    matcher = matcher_of(codes, sample_share=1.0)
    matcher.control.margin = 0.0
    hits = [(h.query.tolist(), h.row.tolist()) for h in matcher.search(codes[:200], 0.3)]
    pairs = [pair for query, row in hits for pair in zip(query, row, strict=True)]
    assert len(pairs) == len(set(pairs))


def test_a_search_can_be_dropped_and_others_go_on():
    codes = people(2000, DIM, seed=14)
    matcher = matcher_of(codes)
    search = matcher.search(codes, 0.0)
    next(search)
    search.close()
    matcher.add(codes[:10])
    assert len(matcher) == 2010


def test_codes_in_a_mapped_file_are_the_same_and_the_file_has_no_name(tmp_path):
    codes = people(3000, 100, seed=15)
    matcher = matcher_of(codes, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert matcher.store.packed.file_bytes >= 3000 * 100
    assert np.array_equal(matcher.store.gather(np.arange(3000)), codes)
    found = as_set(matcher.search_within(codes[:30], 0.5, WHOLE_MARGIN))
    assert found == naive_hits(codes[:30], codes, 0.5)


# -- parts -------------------------------------------------------------------------------------------------


def test_a_store_refuses_what_does_not_fit():
    store = CellStore(8)
    cells = store.take_cells(2)
    for wrong in (np.zeros((1, 9), np.int8), np.zeros((1, 8), np.int16), np.full((1, 8), -128, np.int8)):
        with pytest.raises(ValueError, match="codes"):
            store.append(wrong, cells[:1])
    with pytest.raises(ValueError, match="cells"):
        store.append(np.ones((2, 8), np.int8), cells[:1])
    with pytest.raises(IndexError):
        store.append(np.ones((1, 8), np.int8), np.array([2], np.uint32))
    assert len(store) == 0
    store.append(np.ones((1, 8), np.int8), cells[:1])
    with pytest.raises(IndexError):
        store.gather(np.array([1]))
    with pytest.raises(IndexError):
        store.move(np.array([0]), np.array([7], np.uint32))
    with pytest.raises(ValueError, match="dim"):
        CellStore(0)


def test_blocks_of_emptied_cells_are_used_again():
    store = CellStore(8)
    cells = store.take_cells(3)
    codes = people(640, 8, seed=16)
    store.append(codes, np.repeat(cells[:1], 640))
    held = store.packed.block_count
    store.move(np.arange(640), np.repeat(cells[1:2], 640))
    store.move(np.arange(640), np.repeat(cells[2:3], 640))
    assert store.packed.block_count == held + 1
    assert store.sizes.tolist() == [0, 0, 640]
    store.remove(np.arange(640))
    store.remove(np.arange(3))
    assert store.removed_count == 640
    store.append(codes, np.repeat(cells[:1], 640))
    assert store.packed.block_count == held + 1
    assert store.cell_of(np.arange(2)).tolist() == [REMOVED, REMOVED]


def test_centroids_do_not_depend_on_threads_and_are_nobody():
    codes = people(3000, DIM, seed=17)
    one, two = (learn_centroids(codes, 64, threads=threads) for threads in (1, 3))
    assert np.array_equal(one, two)
    assert 32 <= len(one) <= 64
    assert learn_centroids(codes[: FEWEST_MEMBERS - 1], 4) is None
    assert learn_centroids(np.zeros((100, DIM), np.int8), 4) is None


def test_cells_grow_with_the_root_of_the_space():
    assert cell_count(4_000_000) == pytest.approx(2 * cell_count(1_000_000), rel=0.02)
    assert cell_count(10) == 16


@pytest.fixture(scope="module")
def many():
    return people(FEWEST_ROWS, 64, seed=19)


def test_links_of_a_batch_are_exact_ones_once_each_and_enough(many):
    run = CellPairs(many, 0.5, 0.99)
    found = tuples(run.links())
    expected = set(tuples(all_pairs(many, 0.5)))
    assert len(found) == len(set(found))
    assert set(found) <= expected
    assert len(found) >= 0.98 * len(expected)
    assert run.engine == "cells"
    assert run.scanned_share < 0.5
    assert run.recall.low <= len(found) / len(expected) <= run.recall.high + 0.01


def test_few_codes_are_compared_exactly(many):
    run = CellPairs(many[:1000], 0.5, 0.99)
    found = sum(len(links) for links in run.links())
    assert found == sum(len(links) for links in all_pairs(many[:1000], 0.5))
    assert (run.engine, run.scanned_share) == ("exact", 1.0)


def test_cells_that_are_no_faster_than_exact_matching_are_left_for_it(many):
    expected = sorted(tuples(all_pairs(many, 0.5)))
    shares = []
    run = CellPairs(many, 0.5, 0.99, exact_s=1e-6, progress=lambda stage, share: shares.append(share))
    assert sorted(tuples(run.links())) == expected
    assert (run.engine, run.scanned_share) == ("exact", 1.0)
    # The reader of the progress is not thrown back when the way changes.
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    faster = CellPairs(many, 0.5, 0.99, exact_s=1e6)
    assert len(tuples(faster.links())) <= len(expected)
    assert faster.engine == "cells"


def test_cells_are_left_where_noting_them_takes_more_memory_than_the_codes(many, monkeypatch):
    monkeypatch.setattr(cell_pairs, "_FEWEST_BOUNDED", 0)
    assert len(tuples(CellPairs(many, 0.5, 0.99).links())) > 0
    monkeypatch.setattr(cell_pairs, "_MOST_PROBES", 1)
    run = CellPairs(many, 0.5, 0.99)
    assert sorted(tuples(run.links())) == sorted(tuples(all_pairs(many, 0.5)))
    assert run.engine == "exact"


def tuples(parts):
    found = []
    for links in parts:
        assert bool((links.a < links.b).all())
        columns = (links.a, links.b, links.similarity)
        found += list(zip(*(column.tolist() for column in columns), strict=True))
    return found
