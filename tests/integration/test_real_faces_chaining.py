"""Real faces past the chaining cliff and before it, without a broker, where this machine has their data."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.support.cli import invoke
from tests.support.faces import require_faces

PAST, NEAR, BEFORE = "0.40", "0.44", "0.60"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Archives by threshold."""
    events, folder = require_faces() / "events.jsonl.gz", tmp_path_factory.mktemp("faces")
    made = {}
    for threshold in (PAST, NEAR, BEFORE):
        made[threshold] = folder / f"{threshold}.zip"
        result = invoke("cluster", events, "--threshold", threshold, "--no-html", "-o", made[threshold])
        assert result.exit_code == 0, result.stderr
    return made


@pytest.mark.parametrize(("threshold", "code"), [(PAST, "large_cluster"), (NEAR, "bridges")])
def test_at_the_cliff_the_warning_names_the_largest_cluster_and_its_bridges(
    archives: dict[str, Path], threshold: str, code: str
) -> None:
    with zipfile.ZipFile(archives[threshold]) as zipped:
        manifest = json.loads(zipped.read("manifest.json"))
        giant = json.loads(zipped.read("clusters.jsonl").splitlines()[0])
    warning = manifest["warnings"][0]
    assert (warning["code"], warning["cluster"], warning["id"]) == (code, 0, giant["id"])
    assert giant["share"] == manifest["figures"]["largest_share"]
    assert (giant["share"] > 0.05) == (code == "large_cluster")
    assert warning["bridges"] == giant["bridges"] > 0
    assert set(warning["pair"]) <= set(warning["objects"]) <= set(giant["objects"])
    result = invoke("clusters", archives[threshold], "--limit", "3")
    assert f"warning: {warning['message']}" in result.stderr
    assert giant["id"] in result.stdout


def test_before_the_cliff_nothing_is_warned_of(archives: dict[str, Path]) -> None:
    with zipfile.ZipFile(archives[BEFORE]) as zipped:
        manifest = json.loads(zipped.read("manifest.json"))
    assert manifest["warnings"] == []
    assert manifest["figures"]["largest_share"] < 0.05
    assert invoke("clusters", archives[BEFORE]).stderr == ""


def test_the_cliff_lies_between_the_two_and_the_curve_has_their_counts(archives: dict[str, Path]) -> None:
    events = require_faces() / "events.jsonl.gz"
    result = invoke("thresholds", events, "--at", f"{PAST},{NEAR},{BEFORE}", "--threshold", PAST, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    # Half of the people of the set: with all of them 0.44 lies past the cliff, and here just before it.
    assert float(PAST) < found["cliff"] < float(NEAR)
    assert f"the threshold {float(PAST):g} is below the cliff" in result.stderr
    for row in found["at"]:
        if f"{row['threshold']:.2f}" in archives and "cliff" not in row["marks"]:
            with zipfile.ZipFile(archives[f"{row['threshold']:.2f}"]) as zipped:
                counts = json.loads(zipped.read("manifest.json"))["counts"]
            assert [counts[name] for name in ("clusters", "singletons", "largest_cluster")] == [
                row["clusters"],
                row["singletons"],
                row["largest_cluster"],
            ]


def test_raising_the_threshold_splits_clusters_and_merges_none(archives: dict[str, Path]) -> None:
    result = invoke("clusters", archives[BEFORE], "--compare", archives[PAST], "--json")
    counts = json.loads(result.stdout)["counts"]
    assert counts["split"] > 0
    assert [counts[kind] for kind in ("merged", "gone", "new", "grown")] == [0, 0, 0, 0]
