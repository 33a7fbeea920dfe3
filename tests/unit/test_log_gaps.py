"""Gaps of a log: found, named, refused, or accepted by a person and remembered in every later manifest."""

from __future__ import annotations

import sqlite3

import pytest

from stream_cluster.config import Settings
from stream_cluster.errors import LogGap
from stream_cluster.messages import RawRecord
from stream_cluster.service import log_gaps
from stream_cluster.state.gaps import (
    LastRecord,
    digest_of,
    gaps_of,
    note_gap,
    note_last_record,
    note_log_begin,
    read_last_record,
    read_log_begin,
)
from tests.support.partitions import message, open_partition, records, vectors

TOPIC, NUMBER = "events", 0


@pytest.fixture
def meta():
    """The only table that gaps are kept in."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    yield connection
    connection.close()


def _facts(connection):
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def test_accepted_gaps_are_kept_in_order_and_forget_the_last_record_of_the_old_log(meta):
    note_last_record(meta, LastRecord(41, "d" * 32))
    assert read_last_record(meta) == LastRecord(41, "d" * 32)
    note_gap(meta, (TOPIC, NUMBER), 42, 50, "2026-05-01T10:00:00Z")
    assert read_last_record(meta) is None
    note_gap(meta, (TOPIC, NUMBER), 70, 0, "2026-05-02T10:00:00Z")
    assert gaps_of(_facts(meta))["gaps"] == [
        {
            "topic": TOPIC,
            "partition": NUMBER,
            "from_offset": begin,
            "to_offset": end,
            "accepted_at": f"2026-05-0{day}T10:00:00Z",
        }
        for day, begin, end in ((1, 42, 50), (2, 70, 0))
    ]


def test_a_state_without_notes_has_no_gap_and_an_unknown_begin(meta):
    assert (read_last_record(meta), read_log_begin(meta)) == (None, None)
    assert gaps_of(_facts(meta)) == {"gaps": [], "log_begins_at": None}
    note_log_begin(meta, 7)
    assert read_log_begin(meta) == 7
    assert gaps_of(_facts(meta)) == {"gaps": [], "log_begins_at": 7}


def test_a_digest_tells_records_apart_by_all_that_they_are():
    parts = [
        (None, None, 1),
        (b"", None, 1),
        (None, b"", 1),
        (b"", b"", 1),
        (b"a", b"bc", 1),
        (b"ab", b"c", 1),
    ]
    parts += [(b"a", b"bc", 2)]
    assert len({digest_of(*part) for part in parts}) == len(parts)
    assert digest_of(b"a", b"bc", 1) == digest_of(b"a", b"bc", 1)
    assert len(digest_of(b"a", b"bc", 1)) == 32


class Log:
    """A log for `first_offset`, and the group that reads it."""

    def __init__(self, monkeypatch, begin=0, end=0, found=None, *, is_first=True):
        self.range, self.first = (begin, end), is_first
        self.looked = 0

        async def digest_at(settings, topic, number, offset):
            self.looked += 1
            return found

        monkeypatch.setattr(log_gaps, "_digest_at", digest_at)

    async def first_offset(self, state, *, accept_gap=False):
        async def in_engine(function, *arguments):
            return function(*arguments)

        async def is_first():
            return self.first

        kafka = Settings().kafka
        return await log_gaps.first_offset(
            kafka, state, self.range, in_engine, is_first=is_first, accept_gap=accept_gap
        )


@pytest.fixture
def state(tmp_path):
    """A new one."""
    opened = open_partition(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def applied(state):
    """Has applied the offsets below 6."""
    state.apply(records([message(n, vector) for n, vector in enumerate(vectors(6))]))
    return state


def _manifest(state):
    with state.view() as view:
        return gaps_of(view.meta)


async def test_a_state_whose_log_has_what_it_needs_goes_on(applied, monkeypatch):
    digest = applied.offsets.last_record().digest
    for begin, end in ((0, 6), (0, 90), (5, 90)):
        assert await Log(monkeypatch, begin, end, digest).first_offset(applied) == 6
    # What it was known by has left the log.
    log = Log(monkeypatch, 6, 90, "another")
    assert await log.first_offset(applied) == 6
    assert log.looked == 0


@pytest.mark.parametrize(
    ("begin", "end", "found", "problem"),
    [
        (8, 20, None, "needs offset 6 next, but the log begins at 8; 2 records are gone"),
        (0, 4, None, "applied offsets below 6, but the log ends at 4; the topic was recreated or truncated"),
        (0, 6, "0" * 32, "another record at offset 5 than the state has applied; it was recreated"),
    ],
)
async def test_a_gap_stops_and_names_itself_until_a_person_accepts_it(
    applied, monkeypatch, begin, end, found, problem
):
    log = Log(monkeypatch, begin, end, found)
    with pytest.raises(LogGap, match=f"topic {TOPIC} partition {NUMBER}: .*{problem}"):
        await log.first_offset(applied)
    assert _manifest(applied)["gaps"] == []
    assert await log.first_offset(applied, accept_gap=True) == begin
    assert (applied.next_offset, applied.stored_offset(TOPIC, NUMBER)) == (begin, begin)
    (gap,) = _manifest(applied)["gaps"]
    assert (gap["from_offset"], gap["to_offset"]) == (6, begin)
    # It is no gap any more, also without the option.
    assert await log.first_offset(applied) == begin


async def test_a_record_that_cannot_be_looked_up_is_no_gap(applied, monkeypatch):
    assert await Log(monkeypatch, 0, 6, None).first_offset(applied) == 6


async def test_the_first_reader_of_a_group_begins_where_the_log_begins_and_remembers_it(state, monkeypatch):
    assert await Log(monkeypatch, 25, 60).first_offset(state) == 25
    assert _manifest(state) == {"gaps": [], "log_begins_at": 25}
    # It has applied nothing yet, but is not taken for another one now.
    state.next_offset = 0
    assert await Log(monkeypatch, 25, 60, is_first=False).first_offset(state) == 25
    with pytest.raises(LogGap, match="needs offset 25 next, but the log begins at 30; 5 records are gone"):
        await Log(monkeypatch, 30, 60, is_first=False).first_offset(state)


async def test_a_new_state_in_a_group_that_had_what_is_gone_is_a_gap(state, monkeypatch):
    log = Log(monkeypatch, 25, 60, is_first=False)
    with pytest.raises(LogGap, match="needs offset 0 next, but the log begins at 25; 25 records are gone"):
        await log.first_offset(state)
    assert await log.first_offset(state, accept_gap=True) == 25
    found = _manifest(state)
    assert found["log_begins_at"] == 25
    assert [(gap["from_offset"], gap["to_offset"]) for gap in found["gaps"]] == [(0, 25)]
    assert await Log(monkeypatch, 0, 60, is_first=False).first_offset(state) == 25


async def test_a_new_state_in_a_whole_log_begins_at_its_begin(state, monkeypatch):
    assert await Log(monkeypatch, 0, 60, is_first=False).first_offset(state) == 0
    assert _manifest(state) == {"gaps": [], "log_begins_at": 0}


def test_the_last_record_of_a_batch_is_noted_with_it(applied):
    all_records = records([message(n, vector) for n, vector in enumerate(vectors(6))])
    last = all_records[-1]
    assert applied.offsets.last_record() == LastRecord(5, digest_of(last.key, last.value, last.timestamp_ms))
    # Repeated records are not the last ones.
    applied.apply(all_records[:2], next_offset=6)
    assert applied.offsets.last_record().offset == 5
    # A rejected one is as good as any.
    applied.apply([RawRecord(TOPIC, NUMBER, 6, 1, b"acme", b"{", None)])
    assert applied.offsets.last_record() == LastRecord(6, digest_of(b"acme", b"{", 1))
