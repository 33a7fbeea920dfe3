from __future__ import annotations

import json

from benchmarks.crossover import crossover, main


def measured(*points):
    return [{"rows": rows, "exact_s": exact_s, "hnsw_s": hnsw_s} for rows, exact_s, hnsw_s in points]


def test_the_crossover_lies_between_two_sizes_in_proportion():
    assert crossover(measured((100, 1.0, 2.0), (200, 5.0, 2.0))) == 125


def test_the_last_change_counts_when_there_are_several():
    points = measured((100, 3.0, 2.0), (200, 1.0, 2.0), (300, 3.0, 2.0))
    assert crossover(points) == 250
    assert crossover(list(reversed(points))) == 250


def test_there_is_no_crossover_when_exact_matching_is_faster_at_the_largest_size():
    assert crossover(measured((100, 3.0, 2.0), (200, 1.0, 2.0))) is None
    assert crossover([{"rows": 100, "exact_s": 1.0}]) is None


def test_a_graph_that_is_faster_everywhere_wins_from_the_smallest_size_on():
    assert crossover(measured((100, 3.0, 2.0), (200, 9.0, 2.0))) == 100


def test_both_matchers_are_measured_up_to_the_largest_graph_and_one_beyond(tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = ["--rows", "300,900", "--max-rows", "500", "--batches", "1", "--threads", "1"]
    main([*arguments, "--write", str(report)])
    with_graph, without = json.loads(report.read_text())["results"].values()
    assert with_graph["recall"] > 0.99
    assert with_graph["hnsw_s"] > 0
    assert with_graph["graph_allocated_bytes_per_object"] > 2048
    assert without["exact_s"] > 0
    assert "hnsw_s" not in without
    assert "1,000 new objects" in capsys.readouterr().out
