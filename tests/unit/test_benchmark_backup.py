from __future__ import annotations

import threading

import pytest

from benchmarks.backup import follow, split_rate
from benchmarks.service_probe import Commit


def commit(time_s, records):
    return Commit(time_s, 0, 0, records, 0, 0, {})


def test_records_of_a_commit_count_where_its_time_was():
    commits = [commit(9, 77), commit(11, 100), commit(13, 40), commit(14, 100)]
    rates = split_rate(commits, [(11.0, 13.0), (20.0, 30.0)], 10.0, 14.0)
    assert rates["with_backup_s"] == 2
    assert rates["without_backup_s"] == 2
    assert rates["with_backup_per_s"] == 20
    assert rates["without_backup_per_s"] == 100
    assert rates["share"] == 0.2
    half = split_rate(commits, [(10.5, 11.0)], 10.0, 11.0)
    assert half["with_backup_per_s"] == half["without_backup_per_s"] == 100


def test_a_run_without_a_backup_is_no_result():
    with pytest.raises(SystemExit, match="more events"):
        split_rate([commit(11, 100)], [], 10.0, 14.0)


def test_backups_are_followed_from_begin_to_end():
    stop = threading.Event()
    answers = iter([False, True, True, False, True])

    def under_way():
        try:
            return next(answers)
        except StopIteration:
            stop.set()
            return True

    spans = follow(under_way, stop)
    assert len(spans) == 2
    assert all(begin <= end for begin, end in spans)
