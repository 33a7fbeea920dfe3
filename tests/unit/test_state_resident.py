"""Small spaces that are idle hold no codes in memory, and lose nothing by it."""

from __future__ import annotations

import numpy as np

from stream_cluster.config import load_settings
from stream_cluster.state.resident import SMALL_ROWS
from tests.property.test_changes import check_memory, contents
from tests.support.partitions import deletion, message, open_partition, records, vectors

ACCOUNTS = 12
BLOCK_BYTES = 64 * (8 + 14)
"""What a space of few objects with eight dimensions holds in memory, at least."""


def arrivals(rounds):
    """One object of each account in each round, the accounts in turn."""
    points = vectors(rounds * ACCOUNTS)
    return [
        message(number, points[number], account=f"account-{number % ACCOUNTS}")
        for number in range(rounds * ACCOUNTS)
    ]


def loaded(partition):
    """Accounts whose codes are in memory."""
    return {space.key.account_id for space in partition.spaces() if space.matcher is not None}


def test_the_codes_of_the_accounts_used_last_stay(tmp_path):
    partition = open_partition(tmp_path, small_spaces_bytes=4 * BLOCK_BYTES)
    for offset, record in enumerate(records(arrivals(1))):
        partition.apply([record], offset + 1)
    assert loaded(partition) == {"account-9", "account-10", "account-11"}
    partition.apply(records([message(100, vectors(1)[0], account="account-0")], first_offset=ACCOUNTS))
    assert loaded(partition) == {"account-10", "account-11", "account-0"}
    partition.close()


def test_a_batch_may_use_more_than_fits(tmp_path):
    partition = open_partition(tmp_path, small_spaces_bytes=2 * BLOCK_BYTES)
    outcome = partition.apply(records(arrivals(3)))
    assert outcome.accepted == 3 * ACCOUNTS
    assert len(loaded(partition)) <= 2
    partition.close()


def test_the_state_is_that_of_a_partition_that_keeps_everything(tmp_path):
    changes = [*arrivals(6)]
    for number in (3, 15, 40):
        changes.insert(
            number + 20,
            deletion(f"account-{number % ACCOUNTS}-{number:05}", account=f"account-{number % ACCOUNTS}"),
        )
    states = []
    for name, limit_bytes in (("all", 1 << 30), ("none", 0)):
        folder = tmp_path / name
        folder.mkdir()
        partition = open_partition(folder, small_spaces_bytes=limit_bytes)
        all_records = records(changes)
        for begin in range(0, len(all_records), 5):
            partition.apply(all_records[begin : begin + 5])
        assert (len(loaded(partition)) > 0) is (limit_bytes > 0)
        check_memory(partition)
        states.append(contents(partition))
        partition.close()
    assert states[0] == states[1]


def test_a_space_that_has_grown_large_is_not_let_go(tmp_path):
    partition = open_partition(tmp_path, floor=0.999, small_spaces_bytes=0)
    points = np.eye(64, dtype=np.float32)[np.arange(SMALL_ROWS) % 64]
    partition.apply(records([message(number, point) for number, point in enumerate(points[:-1])]))
    assert loaded(partition) == set()
    partition.apply(records([message(SMALL_ROWS, points[-1])], first_offset=SMALL_ROWS - 1))
    assert loaded(partition) == {"acme"}
    partition.close()


def test_a_graph_is_not_let_go(tmp_path):
    hnsw = load_settings(None, {}, {"matching.engine": "hnsw"})
    partition = open_partition(tmp_path, settings=hnsw, small_spaces_bytes=0)
    points = vectors(6)
    for number in range(6):
        partition.apply(records([message(number, points[number])], first_offset=number))
    (space,) = partition.spaces()
    assert space.matcher is not None
    assert not space.matcher.holds_only_codes
    partition.close()
