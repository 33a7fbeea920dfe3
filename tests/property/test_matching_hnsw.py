from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.matching.cache_file import CacheRejected, sidecar_path
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.matching.matcher import SpaceMatcher
from stream_cluster.matching.store import CodeStore
from tests.support.descriptors import code_sets, people, thresholds
from tests.support.oracle import as_set, naive_hits


@dataclass
class Settings:
    engine: str
    hnsw_after: int
    recall_sample_share: float
    hnsw_m: int = 8
    hnsw_ef_construction: int = 40
    hnsw_ef_search: int = 40
    threads: int = 1
    cells_after: int = 10**9
    target_recall: float = 0.995
    cells_budget_share: float = 0.05
    cells_sample_share: float = 0.1
    map_codes: bool = False


@settings(deadline=None)
@given(code_sets(max_rows=30), thresholds, st.integers(2, 16), st.data())
def test_hits_of_the_graph_are_exact_hits_bit_for_bit(codes, threshold, m, data):
    """Whatever the graph looks like: a hit may be missing, but none is invented or differs in a bit."""
    cut = data.draw(st.integers(0, len(codes)))
    removed = data.draw(st.lists(st.integers(0, len(codes) - 1), max_size=5) if len(codes) else st.just([]))
    matcher = HnswMatcher(codes.shape[1], m, 10, 10, 1)
    matcher.add(codes[:cut])
    matcher.add(codes[cut:])
    matcher.remove(np.array(removed, np.uint32))
    expected = {hit for hit in naive_hits(codes, codes, threshold) if hit[1] not in removed}
    found = as_set(matcher.search(codes, threshold))
    assert found <= expected
    if threshold < 0:
        assert found == expected


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 150), st.integers(0, 999), st.floats(0.2, 0.95))
def test_a_small_graph_of_distinct_descriptors_misses_nothing(rows, seed, threshold):
    codes = people(rows, 32, seed=seed)
    matcher = HnswMatcher(32, 16, 200, 200, 1)
    matcher.add(codes)
    assert as_set(matcher.search(codes, threshold)) == naive_hits(codes, codes, threshold)


@settings(deadline=None)
@given(
    code_sets(max_rows=25),
    thresholds,
    st.integers(0, 20),
    st.sampled_from(["auto", "exact", "hnsw"]),
    st.floats(0, 1),
    st.data(),
)
def test_when_the_engine_is_switched_changes_no_hit(codes, threshold, after, engine, share, data):
    matcher = SpaceMatcher(codes.shape[1], Settings(engine, after, share))
    start, removed = 0, set()
    while start < len(codes):
        stop = data.draw(st.integers(start + 1, len(codes)))
        expected = naive_hits(codes[start:stop], codes[:start], threshold)
        found = as_set(matcher.search(codes[start:stop], threshold))
        assert found == {hit for hit in expected if hit[1] not in removed}
        uses_hnsw = engine == "hnsw" or (engine == "auto" and start >= after)
        assert matcher.engine == ("hnsw" if uses_hnsw else "exact")
        matcher.add(codes[start:stop])
        gone = data.draw(st.integers(0, stop - 1))
        if data.draw(st.booleans()):
            matcher.remove(np.array([gone]))
            removed.add(gone)
        start = stop
    links_true, links_found = matcher.take_recall()
    assert links_true == links_found


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a saved graph, its codes, and the bytes of its two files."""
    codes = people(60, 8)
    path = tmp_path_factory.mktemp("cache") / "graph"
    matcher = HnswMatcher(8, 4, 20, 20, 1)
    matcher.add(codes)
    matcher.save(path)
    return path, codes, path.read_bytes(), sidecar_path(path).read_bytes()


@settings(deadline=None)
@given(st.booleans(), st.data())
def test_a_cache_damaged_anywhere_is_refused_and_never_loaded(saved, in_sidecar, data):
    path, codes, content, sidecar = saved
    whole = bytearray(sidecar if in_sidecar else content)
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        del whole[position:]
    else:
        whole[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content if in_sidecar else whole)
    sidecar_path(path).write_bytes(whole if in_sidecar else sidecar)
    store = CodeStore(8)
    store.append(codes)
    with pytest.raises(CacheRejected) as caught:
        HnswMatcher.load(path, store, m=4, ef_construction=20, threads=1)
    assert caught.value.reason == "damaged"
    path.write_bytes(content)
    sidecar_path(path).write_bytes(sidecar)
    assert HnswMatcher.load(path, store, m=4, ef_construction=20, threads=1).indexed == 60
