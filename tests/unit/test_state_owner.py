"""A database has one writer: the last that opened it, also where no lock keeps two apart."""

from __future__ import annotations

import pytest

from stream_cluster.errors import StateLocked
from stream_cluster.state.backup.copy import read_facts
from stream_cluster.state.database import database_path, open_reader
from tests.support.partitions import message, open_partition, records, vectors


def _records(begin: int, count: int):
    found = vectors(begin + count)
    return records([message(n, found[n]) for n in range(begin, begin + count)], first_offset=begin)


def test_a_writer_that_is_not_the_last_one_can_do_nothing_more(tmp_path):
    stale = open_partition(tmp_path)
    stale.apply(_records(0, 4))
    owner = open_partition(tmp_path)
    prepared = stale.prepare(_records(4, 2), 6)
    for write in (
        lambda: stale.commit(prepared),
        lambda: stale.offsets.store({("tasks", 0): 9}),
        lambda: stale.begin_at(3),
        lambda: stale.vacuum(1),
    ):
        with pytest.raises(StateLocked, match="another process has opened this database"):
            write()
    owner.apply(_records(4, 3))
    assert owner.next_offset == 7
    assert owner.stored_offset("tasks", 0) is None
    stale.close()
    owner.close()


def test_opening_a_database_again_is_no_change_to_back_up(tmp_path):
    first = open_partition(tmp_path)
    first.apply(_records(0, 4))
    first.close()
    path = database_path(tmp_path, 0)
    before = read_facts(path)
    open_partition(tmp_path).close()
    after = read_facts(path)
    assert after.meta["owner"] != before.meta["owner"]
    assert after.fingerprint == before.fingerprint


def test_readers_go_on_whoever_writes(tmp_path):
    first = open_partition(tmp_path)
    first.apply(_records(0, 4))
    reader = open_reader(database_path(tmp_path, 0))
    second = open_partition(tmp_path)
    assert reader.execute("SELECT count(*) FROM objects").fetchone() == (4,)
    for one in (reader, first, second):
        one.close()
