"""What only the native kernel has: its paths, its threads, and its bounds of memory and time."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from stream_cluster.errors import Cancelled
from stream_cluster.matching import exact, kernel
from stream_cluster.matching.exact import ExactMatcher, all_pairs
from stream_cluster.matching.store import CodeStore
from stream_cluster.matching.threads import core_count, limit_threads, resolve_threads, thread_limit
from stream_cluster.model import Interrupt
from tests.support.descriptors import people
from tests.support.oracle import as_set, naive_hits

THREADS_OF_PROCESS = Path("/proc/self/task")


@pytest.fixture
def two_threads():
    yield limit_threads(2)
    limit_threads(0)


def run_over(codes, threshold, *, threads, max_hits=1 << 20):
    return kernel.pairs_of_codes(codes, None, threshold, threads=threads, max_hits=max_hits, path="")


def drain(run):
    while not run.done:
        chunk = run.next(1)
        if chunk is not None:
            yield chunk


def test_the_fastest_path_is_in_use_and_a_path_can_be_asked_for(monkeypatch):
    monkeypatch.delenv("STREAM_CLUSTER_KERNEL", raising=False)
    paths = kernel.available_paths()
    assert "portable" in paths
    assert kernel.path_in_use("") == paths[0]
    monkeypatch.setenv("STREAM_CLUSTER_KERNEL", "portable")
    assert kernel.path_in_use("") == "portable"
    assert kernel.path_in_use(paths[0]) == paths[0]


def test_a_path_that_the_processor_lacks_is_refused_and_those_it_has_are_named(monkeypatch):
    monkeypatch.setenv("STREAM_CLUSTER_KERNEL", "mmx")
    with pytest.raises(ValueError, match=r'STREAM_CLUSTER_KERNEL: found "mmx", expected .*portable'):
        list(all_pairs(np.ones((2, 2), np.int8), 0.5))
    with pytest.raises(ValueError, match='path: found "neon"'):
        kernel.path_in_use("neon")


@pytest.mark.parametrize("dim", [8, 512])
def test_one_thread_and_more_find_the_same_pairs(dim):
    codes = people(3000, dim)
    assert run_over(codes, 0.6, threads=2).threads == 2
    sets = []
    for threads in (1, 2, 5):
        chunks = list(drain(run_over(codes, 0.6, threads=threads, max_hits=1000)))
        assert all(0 < len(left) <= 1000 for left, _, _ in chunks)
        sets.append(sorted(np.concatenate([(a.astype(np.uint64) << 32) | b for a, b, _ in chunks]).tolist()))
    assert sets[0] == sets[1] == sets[2]
    assert len(set(sets[0])) == len(sets[0]) > 5000


def test_a_small_search_starts_no_thread():
    codes = people(100, 512)
    assert run_over(codes, 0.5, threads=8).threads == 1


def test_a_caller_that_takes_nothing_holds_the_other_thread_back():
    """After the first chunk at most two more wait and one is under way, of thousands."""
    codes = np.full((20_000, 8), 5, np.int8)
    run = run_over(codes, 0.5, threads=2, max_hits=10_000)
    assert run.threads == 2
    assert run.next(1) is not None
    time.sleep(0.3)
    assert run.progress < 0.02
    run.stop()


def test_a_cancelled_search_ends_within_a_fraction_of_a_second(two_threads, monkeypatch):
    monkeypatch.setenv("STREAM_CLUSTER_KERNEL", "portable")
    codes = people(60_000, 256)
    interrupt = Interrupt()
    timer = threading.Timer(0.3, interrupt.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        list(all_pairs(codes, 0.99, interrupt=interrupt))
    # All of it takes a minute.
    assert time.monotonic() - began < 1.3
    timer.join()


def test_python_runs_while_the_kernel_works():
    codes = people(20_000, 256)
    counted = []

    def count():
        while not done.is_set():
            counted.append(time.monotonic())
            time.sleep(0.001)

    done = threading.Event()
    thread = threading.Thread(target=count)
    thread.start()
    list(drain(run_over(codes, 0.99, threads=1)))
    done.set()
    thread.join()
    assert len(counted) > 20


def test_dropping_an_iterator_or_a_run_half_way_ends_its_threads(two_threads):
    if not THREADS_OF_PROCESS.exists():
        pytest.skip("the system does not list the threads of a process")
    codes = np.full((20_000, 8), 5, np.int8)
    before = len(list(THREADS_OF_PROCESS.iterdir()))
    for _ in range(3):
        links = all_pairs(codes, 0.5)
        next(links)
        links.close()
        run = run_over(codes, 0.5, threads=2, max_hits=1000)
        run.next(1)
        del run
    gc.collect()
    assert len(list(THREADS_OF_PROCESS.iterdir())) == before


def test_chunks_stay_valid_after_their_run_and_its_input_are_gone():
    codes = np.full((300, 8), 5, np.int8)
    run = run_over(codes, 0.5, threads=1, max_hits=1000)
    chunks = list(drain(run))
    del run, codes
    gc.collect()
    assert sum(len(a) for a, _, _ in chunks) == 300 * 299 // 2
    assert all((a < b).all() and (s == np.float32(1)).all() for a, b, s in chunks)


def test_rows_that_are_added_during_a_search_are_not_seen_by_it():
    matcher = ExactMatcher(8)
    codes = np.full((100, 8), 5, np.int8)
    matcher.add(codes)
    run = kernel.search(matcher.store.packed, codes, 0.5, first_row=0, threads=1, max_hits=64, path="")
    first = run.next(1)
    matcher.add(np.full((5000, 8), 5, np.int8))
    rest = list(drain(run))
    assert len(first[0]) + sum(len(a) for a, _, _ in rest) == 100 * 100


@pytest.mark.parametrize("bad", [np.array([[1, -128]], np.int8), np.array([[-128, 0]], np.int8)])
def test_a_value_that_is_no_code_is_refused_everywhere_and_nothing_is_added(bad):
    store = CodeStore(2)
    with pytest.raises(ValueError, match="found -128"):
        store.append(np.concatenate((np.ones((1, 2), np.int8), bad)))
    assert len(store) == 0
    with pytest.raises(ValueError, match="found -128"):
        list(exact.scan(store, bad, 0.5))
    with pytest.raises(ValueError, match="found -128"):
        list(all_pairs(bad, 0.5))


@pytest.mark.parametrize("dim", [0, 4097])
def test_a_dimension_out_of_range_is_refused_by_all_pairs(dim):
    with pytest.raises(ValueError, match="expected 1 to 4096"):
        list(all_pairs(np.ones((2, dim), np.int8), 0.5))


def test_a_missing_kernel_says_how_to_build_it():
    program = (
        "import sys; sys.modules['stream_cluster.matching._kernel'] = None\n"
        "import stream_cluster.matching.exact"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make setup" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_hundred_thousand_identical_descriptors_stay_within_200_megabytes(two_threads):
    """5e9 links, 60 GB of them."""
    psutil = pytest.importorskip("psutil")
    codes = np.full((100_000, 16), 7, np.int8)
    before = psutil.Process().memory_info().rss
    total, peak = 0, 0
    for number, links in enumerate(all_pairs(codes, 0.99)):
        total += len(links)
        if number % 100 == 0:
            peak = max(peak, psutil.Process().memory_info().rss)
    assert total == 100_000 * 99_999 // 2
    assert peak - before < 200e6


def test_single_queries_find_what_a_batch_finds():
    codes = people(2000, 128)
    matcher = ExactMatcher(128)
    matcher.add(codes)
    expected = naive_hits(codes[:40], codes, 0.4)
    found = set()
    for number in range(40):
        found |= {
            (number, row, bits) for _, row, bits in as_set(matcher.search(codes[number : number + 1], 0.4))
        }
    assert found == expected


def test_the_limit_of_threads_holds_for_the_kernel_and_for_blas_and_zero_means_every_core():
    blas = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    assert blas, "NumPy without a BLAS that can be limited"
    try:
        assert limit_threads(1) == thread_limit() == 1
        assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {1}
    finally:
        assert limit_threads(0) == thread_limit() == core_count()
    assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {core_count()}


def test_a_negative_number_of_threads_is_refused():
    with pytest.raises(ValueError, match="found -1"):
        resolve_threads(-1)
