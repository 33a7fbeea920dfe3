"""Backups of partitions in tests: stores with faults, and what a state holds whatever file it is in."""

from __future__ import annotations

import sqlite3
import time

from stream_cluster.model import Interrupt
from stream_cluster.service.backup_store import BucketBackups, DirectoryBackups
from stream_cluster.service.partition_backups import PartitionBackups
from stream_cluster.state.backup.place import place_database, restoring_path
from stream_cluster.state.database import database_path
from tests.support.partitions import message, open_partition, records, vectors

TABLES = ("offsets", "spaces", "objects", "codes", "links", "counters", "tasks")


def contents(path):
    """Every row of every table, but for notes about the file itself."""
    connection = sqlite3.connect(path)
    try:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in TABLES}
    finally:
        connection.close()


def in_directory(folder, topic="events", partition=0):
    """The backups of a partition in a directory."""
    return PartitionBackups(DirectoryBackups(folder), topic, partition)


def back_up(backups, state, *, epoch=1, is_owner=lambda: True, interrupt=None, partition=0):
    """Make a backup of a state directory's partition."""
    return backups.make(
        database_path(state, partition),
        state / "backup",
        epoch,
        is_owner=is_owner,
        interrupt=interrupt or Interrupt(),
    )


def restore_newest(backups, state, partition=0):
    """Restore the newest backup into a state directory; its path."""
    state.mkdir(parents=True, exist_ok=True)
    target = restoring_path(state, partition)
    backups.restore(backups.manifest(backups.newest_first()[0]), target, Interrupt())
    place_database(target, state, partition)
    return database_path(state, partition)


def store_of(request, tmp_path):
    """The store of a fixture's parameter: a `directory`, or one in a bucket of the fixture `server`."""
    if request.param == "directory":
        return DirectoryBackups(tmp_path / "backups")
    server = request.getfixturevalue("server")
    return BucketBackups(server.backup_settings(prefix=f"b/{tmp_path.name}/{time.time_ns()}"))


def messages(count, first=0):
    """Events with vectors of their own, numbered from `first` on."""
    made = vectors(count, seed=first)
    return [message(first + number, vector) for number, vector in enumerate(made)]


def filled(folder, count=300):
    """An open partition with so many objects, in a state directory."""
    folder.mkdir(parents=True, exist_ok=True)
    partition = open_partition(folder)
    partition.apply(records(messages(count)))
    return partition
