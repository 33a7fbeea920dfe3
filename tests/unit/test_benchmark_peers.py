from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peer_engines import ENGINES, _growing_k
from benchmarks.seed_data import SeedData

IMPORTED = {"faiss": "faiss", "usearch-f32": "usearch", "usearch-i8": "usearch"}


@pytest.fixture(scope="module")
def vectors():
    return SeedData(700).vectors()


@pytest.fixture(scope="module")
def expected(vectors):
    """Pairs above 0.5 and their cosines by their definition."""
    exact = vectors.astype(np.float64)
    cosine = exact @ exact.T / np.outer(*[np.linalg.norm(exact, axis=1)] * 2)
    a, b = np.nonzero(np.triu(cosine > 0.5, 1))
    # No pair so close to the threshold that a code's rounding could turn it.
    assert np.abs(cosine[np.triu_indices(700, 1)] - 0.5).min() > 1e-6
    return set(zip(a.tolist(), b.tolist(), strict=True))


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_finds_the_pairs(name, vectors, expected):
    if name in IMPORTED:
        pytest.importorskip(IMPORTED[name])
    found = ENGINES[name](vectors, 0.5, 1)
    pairs = set(zip(found.a.tolist(), found.b.tolist(), strict=True))
    assert len(pairs) == len(found.a)
    # int8 codes may differ near the threshold.
    assert len(pairs ^ expected) <= 0.005 * len(expected)
    assert found.index_s >= 0
    assert found.search_s > 0


def test_a_query_with_more_neighbours_than_k_is_asked_again_with_a_larger_k():
    similarity = np.full((300, 300), 0.9, np.float32)
    similarity[200:, :200] = similarity[:200, 200:] = 0.1
    asked = []

    def nearest(rows, k):
        asked.append((len(rows), k))
        order = np.argsort(-similarity[rows], axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(similarity[rows], order, axis=1)

    pairs = [(a, b) for part in _growing_k(nearest, 300, 0.5) for a, b in zip(*part, strict=True)]
    assert len(pairs) == len(set(pairs)) == 200 * 200 + 100 * 100
    assert asked == [(300, 16), (300, 64), (300, 256)]


def test_truth_is_that_of_float64(vectors, expected):
    truth = peers.truth_of(vectors, 0.5, 1)
    assert set(zip(*(rows.tolist() for rows in peers._rows(truth.links)), strict=True)) == expected
    assert set(truth.certain) <= set(truth.links) <= set(truth.possible)


def test_truth_of_a_large_set_is_the_same_by_way_of_the_codes(vectors, monkeypatch):
    by_tiles = peers.truth_of(vectors, 0.5, 1)
    monkeypatch.setattr(peers, "_TILES_UP_TO", 0)
    by_codes = peers.truth_of(vectors, 0.5, 1)
    np.testing.assert_array_equal(by_tiles.links, by_codes.links)
    np.testing.assert_array_equal(by_tiles.possible, by_codes.possible)
    np.testing.assert_array_equal(by_tiles.labels, by_codes.labels)


def test_a_missed_link_and_a_wrong_one_are_counted():
    def keys(*pairs):
        return np.array([a << 32 | b for a, b in pairs], np.uint64)

    truth = peers.Truth(
        links=keys((0, 1), (1, 2), (3, 4)),
        certain=keys((0, 1), (1, 2)),
        possible=keys((0, 1), (1, 2), (3, 4), (4, 5)),
        labels=np.array([0, 0, 0, 1, 1, 2], np.int32),
    )
    found = peers.judge(truth, keys((0, 1), (2, 3), (4, 5)), np.array([0, 0, 1, 1, 2, 2], np.int32))
    assert found["links_found_share"] == pytest.approx(1 / 3, abs=1e-6)
    assert (found["links_wrong"], found["links_missed"]) == (1, 1)
    assert found["pairwise_f"] < 1
    right = peers.judge(truth, truth.links, truth.labels)
    assert (right["links_found_share"], right["links_wrong"], right["links_missed"]) == (1.0, 0, 0)
    assert right["adjusted_rand"] == right["pairwise_f"] == 1.0


def test_engines_run_in_processes_of_their_own_and_are_compared(tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = ["--sizes", "300", "--engines", "stream-cluster,numpy", "--threads", "1"]
    assert peers.main([*arguments, "--write", str(report)]) == 0
    results = json.loads(report.read_text())["results"]
    assert list(results) == ["300 stream-cluster", "300 numpy"]
    assert results["300 stream-cluster"]["times_slower"] == 1.0
    assert results["300 numpy"]["adjusted_rand"] == 1.0
    assert "300 numpy" in capsys.readouterr().out


def test_an_engine_that_takes_too_long_is_stopped_and_left_out_at_larger_sizes(tmp_path):
    report = tmp_path / "report.json"
    arguments = ["--sizes", "300,301", "--engines", "numpy", "--limit-s", "0.05", "--write", str(report)]
    assert peers.main(arguments) == 0
    results = json.loads(report.read_text())["results"]
    assert list(results) == ["300 numpy"]
    assert results["300 numpy"]["failed"] == "not done within 0.05 s"


def test_time_and_memory_alone_need_no_truth(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(peers, "truth_of", lambda *_: pytest.fail("worked out"))
    report = tmp_path / "report.json"
    arguments = ["--sizes", "300", "--engines", "stream-cluster", "--unjudged", "--write", str(report)]
    assert peers.main(arguments) == 0
    result = json.loads(report.read_text())["results"]["300 stream-cluster"]
    assert "links_true" not in result
    assert result["links"] > 0
    assert "300 stream-cluster" in capsys.readouterr().out


def test_an_engine_that_cannot_be_done_in_time_is_not_started(tmp_path):
    earlier = {
        "100 numpy": {"seconds": 0.001},
        "1,000 numpy": {"seconds": 0.5},
        "1,000 hnswlib": {"seconds": 4.0},
        "1,000 faiss": {"failed": "not done within 1 s"},
        "100,000 numpy": {"seconds": 1000.0},
        "1,000 stream-cluster": {"seconds": 100.0},
    }
    # Comparing all pairs grows with the square, from the largest of the smaller sizes.
    assert peers.not_started("numpy", 10_000, earlier, 50) is None
    assert peers.not_started("numpy", 10_000, earlier, 49) == {
        "failed": "not started: 0 s at 1,000 make at least 50 s here, the limit is 49 s",
        "least_s": 50,
    }
    # A graph may be built in linear time.
    assert peers.not_started("hnswlib", 10_000, earlier, 40) is None
    assert peers.not_started("hnswlib", 10_000, earlier, 39)["least_s"] == 40
    # Nothing is known of these, and this product is always measured.
    assert peers.not_started("faiss", 10_000, earlier, 1) is None
    assert peers.not_started("usearch-i8", 10_000, earlier, 1) is None
    assert peers.not_started("stream-cluster", 10_000, earlier, 1) is None


def test_times_of_the_file_that_is_added_to_count(tmp_path):
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"environment": {}, "results": {"100 numpy": {"seconds": 50.0}}}))
    arguments = ["--sizes", "300", "--engines", "numpy", "--limit-s", "60", "--write", str(report)]
    assert peers.main([*arguments, "--keep"]) == 0
    results = json.loads(report.read_text())["results"]
    assert results["100 numpy"] == {"seconds": 50.0}
    assert results["300 numpy"]["least_s"] == 450


def test_an_engine_that_fails_says_why(tmp_path):
    found = peers._run_limited("numpy", tmp_path, 0.5, 1, 60)
    assert "No such file" in found["failed"]


def test_an_unknown_engine_is_refused(capsys):
    with pytest.raises(SystemExit):
        peers.main(["--engines", "abacus"])
    assert "found abacus, expected some of stream-cluster" in capsys.readouterr().err
