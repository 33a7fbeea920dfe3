from __future__ import annotations

import pytest

from benchmarks.selection import make_state, measure


def test_filtered_tasks_select_the_share_that_the_method_says(tmp_path):
    make_state(tmp_path, 10_000)
    results = measure(tmp_path, 10_000)
    assert results["time_and_source"]["selected"] == pytest.approx(1000, rel=0.1)
    assert results["source"]["selected"] == pytest.approx(1000, rel=0.1)
    assert 0 < results["many"]["selected"] < results["tags"]["selected"] < 10_000
    assert 0 < results["meta"]["selected"] < 10_000
    for name in ("archive", "archive_all_columns"):
        assert results[name]["selected"] == results["time_and_source"]["selected"]
        assert 0 < results[name]["clusters"] < results[name]["selected"]
    assert results["archive"]["target_s"] == 8.0
