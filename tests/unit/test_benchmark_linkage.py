"""The benchmarks of linkages, small: what they measure, and what a later run adds to a file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import linkage, linkage_scale
from stream_cluster.graph.components import connected_components
from stream_cluster.matching import all_pairs, quantise
from stream_cluster.model import concatenate_links


def test_the_chain_is_one_component_of_which_few_pairs_are_linked():
    rows = np.concatenate(list(linkage.chain(1500, 512)))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    links = concatenate_links(list(all_pairs(quantise(rows), 0.5)))
    assert connected_components(1500, [(links.a, links.b)]).max() == 0
    places = np.stack((links.a, links.b)).astype(int)
    alike = (places % 50 == 0).all(axis=0)
    assert abs(places[1] - places[0])[~alike].max() < 8
    assert len(links) < 1500 * 5
    assert (places % 100 == 0).all(axis=0).sum() == 15 * 14 // 2


def test_cells_are_written_one_by_one_and_a_later_run_keeps_them(tmp_path, monkeypatch, capsys):
    target = tmp_path / "linkage_scale.json"
    measured = []
    runs = iter(({"run": 1}, {"run": 2}))
    monkeypatch.setattr(linkage_scale, "environment", lambda: next(runs))

    def run(source, threshold, kind, people):
        measured.append((len(people), kind, threshold))
        return {"cluster_s": 1.0, "largest_cluster": 30, "pairwise_f": threshold, "bcubed_f": 0.5}

    monkeypatch.setattr(linkage_scale, "measured_run", run)
    options = ["--dims", "128", "--thresholds", "0.5,0.4", "--write", str(target)]
    assert linkage_scale.main(["--sizes", "300", *options]) == 0
    assert linkage_scale.main(["--sizes", "300,600", *options, "--keep"]) == 0
    assert measured == [
        (size, kind, threshold)
        for size in (300, 600)
        for threshold in (0.5, 0.4)
        for kind in ("components", "average")
    ]
    report = json.loads(target.read_text())
    assert report["parameters"]["sizes"] == [300]
    assert [later["results"] for later in report["added"]] == [["600 x 128 components", "600 x 128 average"]]
    assert report["results"]["300 x 128 average"]["0.4"] == {
        "cluster_s": 1.0,
        "pairwise_f": 0.4,
        "bcubed_f": 0.5,
        "largest_share": 0.1,
    }
    assert set(report["results"]["600 x 128 components"]) == {"0.5", "0.4"}
    assert b"BCubed F, 600 x 128" in target.with_suffix(".svg").read_bytes()
    assert capsys.readouterr().out.count("600 x 128 average at") == 2


def test_cells_from_one_match_are_those_of_separate_ones(tmp_path):
    """Both ways are run for real, at a threshold at which components chain and one at which they do not."""
    options = ["--sizes", "2000", "--dims", "128", "--thresholds", "0.35,0.5"]
    found = {}
    for name, more in (("apart", []), ("once", ["--once"])):
        target = tmp_path / f"{name}.json"
        assert linkage_scale.main([*options, *more, "--write", str(target)]) == 0
        found[name] = json.loads(target.read_text())["results"]
    same = ("clusters", "pairwise_f", "bcubed_f", "largest_share")
    assert len(found["once"]) == 2
    for cells, cells_apart in zip(found["once"].values(), found["apart"].values(), strict=True):
        for cell, apart in zip(cells.values(), cells_apart.values(), strict=True):
            assert [cell[figure] for figure in same] == [apart[figure] for figure in same]
            assert cell["cluster_s"] == pytest.approx(cell["match_s"] + cell["cut_s"], abs=0.001)


def test_cells_of_the_linkage_benchmark_run_apart(tmp_path, monkeypatch):
    target = tmp_path / "linkage.json"
    runs = iter(({"run": 1}, {"run": 2}))
    monkeypatch.setattr(linkage, "environment", lambda: next(runs))
    options = ["--linkages", "average", "--write", str(target)]
    assert linkage.main(["--cells", "chain", "--chain", "300", *options]) == 0
    assert linkage.main(["--cells", "scale", "--sizes", "400", *options, "--keep"]) == 0
    report = json.loads(target.read_text())
    assert list(report["results"]) == ["chain of 300 average", "400 average"]
    assert report["results"]["400 average"]["pairwise_f"] > 0.9
    assert report["results"]["chain of 300 average"]["clusters"] > 10
    assert report["added"][0]["results"] == ["400 average"]
