from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from stream_cluster.graph.links import pack_links, unpack_links
from stream_cluster.model import Cancelled, Interrupt, Links
from stream_cluster.state.chunks import _checksum
from stream_cluster.state.database import database_path
from stream_cluster.state.verify import verify_database
from tests.support.partitions import deletion, message, open_partition, records, vectors


@pytest.fixture
def path(tmp_path):
    partition = open_partition(tmp_path)
    made = [message(number, vector) for number, vector in enumerate(vectors(400))]
    bodies = [message(number, vector, kind="body") for number, vector in enumerate(vectors(90, seed=5), 400)]
    for first in range(0, 400, 50):
        partition.apply(records(made[first : first + 50], first_offset=first))
    partition.apply(records(bodies, first_offset=400))
    partition.apply(records([deletion("acme-00003", "acme-00401")], first_offset=490))
    partition.close()
    return database_path(tmp_path, 0)


def change(path, *statements):
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(*statement) if isinstance(statement, tuple) else connection.execute(statement)
    connection.close()


def change_links(path, harm):
    connection = sqlite3.connect(path)
    seq, data = connection.execute("SELECT seq, data FROM links WHERE links > 3 ORDER BY seq").fetchone()
    harmed = harm(unpack_links(data))
    packed = pack_links(harmed)
    with connection:
        connection.execute(
            "UPDATE links SET links = ?, crc32 = ?, data = ? WHERE seq = ?",
            (len(harmed), _checksum(packed), packed, seq),
        )
    connection.close()


def test_a_state_with_deletions_is_whole(path):
    found = verify_database(path)
    assert found.problems == []
    assert (found.next_offset, found.spaces, found.objects) == (491, 2, 488)
    assert found.links > 300


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE offsets SET next_offset = 20", "counted records"),
        ("UPDATE spaces SET next_row = next_row + 1 WHERE space_id = 1", "objects, expected"),
        ("DELETE FROM objects WHERE key = (SELECT max(key) FROM objects)", "objects, expected"),
        ("UPDATE objects SET space_id = 9 WHERE object_id = 'acme-00005'", "spaces that do not exist"),
        ("DELETE FROM codes WHERE key = (SELECT min(key) FROM codes)", "codes jump from row 0"),
        ("UPDATE codes SET data = zeroblob(length(data)) WHERE rows > 1", "checksum"),
        ("UPDATE links SET crc32 = crc32 + 1 WHERE seq = (SELECT max(seq) FROM links)", "checksum"),
        (
            "INSERT INTO tasks (account_id, task_id, status, request, read_time_us, barrier) "
            "VALUES ('a', 't', 'lost', x'', 0, 0)",
            "found status 'lost'",
        ),
    ],
)
def test_what_contradicts_is_told(path, statement, problem):
    change(path, statement)
    problems = verify_database(path).problems
    assert any(problem in text for text in problems), problems


def test_a_code_of_a_deleted_object_is_told(path):
    connection = sqlite3.connect(path)
    (data,) = connection.execute("SELECT data FROM codes WHERE key = 1 << 32").fetchone()
    # Row 3 is deleted, and a row has eight values.
    harmed = data[:24] + b"\x05" * 8 + data[32:]
    with connection:
        connection.execute(
            "UPDATE codes SET data = ?, crc32 = ? WHERE key = 1 << 32", (harmed, _checksum(harmed))
        )
    connection.close()
    assert verify_database(path).problems == ["space 1: found 1 codes of deleted objects, expected zeros"]


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda links: Links(links.b, links.a, links.similarity), "from a lower to a higher row"),
        (lambda links: Links(links.a, links.b + np.uint32(10_000), links.similarity), "from a lower"),
        (
            lambda links: Links(links.a, links.b, links.similarity * np.float32(0.99)),
            "whose similarity is not",
        ),
        (
            lambda links: Links(
                np.concatenate([links.a, links.a[:1]]),
                np.concatenate([links.b, links.b[:1]]),
                np.concatenate([links.similarity, links.similarity[:1]]),
            ),
            "a cycle",
        ),
        (
            lambda links: Links(
                np.concatenate([links.a, np.array([3], np.uint32)]),
                np.concatenate([links.b, np.array([20], np.uint32)]),
                np.concatenate([links.similarity, np.array([0.0], np.float32)]),
            ),
            "links of deleted objects",
        ),
    ],
)
def test_links_that_are_no_forest_of_this_space_are_told(path, harm, problem):
    change_links(path, harm)
    problems = verify_database(path).problems
    assert any(problem in text for text in problems), problems


def test_a_damaged_structure_is_told(path):
    change(path, "PRAGMA writable_schema = ON", "DELETE FROM sqlite_schema WHERE name = 'objects_by_id'")
    assert any("never used" in text for text in verify_database(path).problems)


def test_a_check_can_be_stopped(path):
    interrupt = Interrupt()
    interrupt.cancel()
    with pytest.raises(Cancelled):
        verify_database(path, interrupt)
