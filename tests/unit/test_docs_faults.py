"""docs/failure-modes.md and the tests of faults name each other; committed results are those of the tests."""

from __future__ import annotations

import re

import pytest

from docs import faults

PAGE = (faults.ROOT / "docs/failure-modes.md").read_text(encoding="utf-8")
IN_TESTS = {test.name: test for test in faults.fault_tests()}


def test_the_page_names_every_test_of_faults_and_no_other():
    named = re.findall(r"`tests/faults/(test_\w+\.py::\w+)`", PAGE)
    assert sorted(named) == sorted(IN_TESTS)


@pytest.mark.parametrize("test", IN_TESTS.values(), ids=lambda test: test.name)
def test_every_row_says_what_happens_what_survives_and_what_is_seen(test):
    assert min(len(test.what), len(test.survives), len(test.seen)) > 10
    assert not test.what.endswith(".")


def test_committed_results_are_of_the_tests_that_there_are_and_lost_nothing():
    found = faults.results("faults")
    assert found is not None, "run `make test-faults` with --write-faults"
    assert set(found["tests"]) == set(IN_TESTS)
    assert (found["totals"]["lost"], found["totals"]["duplicated"]) == (0, 0)
    assert min(found["totals"][name] for name in ("kills", "broker_restarts", "rebalances", "objects")) > 0


def test_ci_runs_a_part_of_every_kind():
    short = {test.name.partition("::")[0] for test in IN_TESTS.values() if test.is_short}
    assert len(short) >= 6


def test_the_numbers_name_the_commit_that_each_result_is_of():
    for name, words in (("faults", "fault matrix"), ("fuzz", "fuzz"), ("soak", "soak")):
        commit = faults.report(name)["environment"]["commit"]
        assert f"{words} at `{commit[:10]}" in PAGE, f"run `make docs`: {name}.json is of {commit}"
