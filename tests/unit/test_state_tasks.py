"""The table of tasks: what is asked, what is due, what is forgotten, and tables of the version before."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from stream_cluster.state import tasks
from stream_cluster.state.schema import DDL, UPGRADE_1_TO_2
from stream_cluster.state.tasks import StoredTask, TaskEnd

TASK = StoredTask("acme", "t", "pending", b"{}", 1, 10)
DONE = TaskEnd("done", 100, b'{"a": 1}', "kept", None, None)

VERSION_1 = """
CREATE TABLE tasks (
    account_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    status TEXT NOT NULL,
    request BLOB NOT NULL,
    read_time_us INTEGER NOT NULL,
    barrier INTEGER NOT NULL,
    PRIMARY KEY (account_id, task_id)
) STRICT, WITHOUT ROWID
"""


def statements(script, table="tasks"):
    """Those of a script that are about one table."""
    found = [part.strip() for part in script.split(";") if part.strip()]
    return [one for one in found if table in one.split("(")[0].split()]


@pytest.fixture
def connection():
    made = sqlite3.connect(":memory:")
    for statement in statements(DDL):
        made.execute(statement)
    yield made
    made.close()


def add(connection, *ends, **changes):
    """A task that had those ends."""
    task = replace(TASK, **changes)
    assert tasks.add_task(connection, task)
    for end in ends:
        tasks.end_task(connection, task.account_id, task.task_id, end)


def names(stored):
    return [task.task_id for task in stored]


def test_a_task_comes_back_as_it_was_stored(connection):
    full = StoredTask("acme", "t", "done", b"{}", 1, 10, "delete", 2, b"{}", "kept", 3, "due")
    assert tasks.add_task(connection, full)
    assert not tasks.add_task(connection, TASK)
    assert tasks.find_task(connection, "acme", "t") == full
    assert tasks.find_task(connection, "other", "t") is None


def test_a_request_is_noted_for_the_account_that_made_it_alone(connection):
    add(connection)
    add(connection, account_id="other")
    assert tasks.ask(connection, "acme", "t", "cancel") == TASK
    assert tasks.find_task(connection, "acme", "t").asked == "cancel"
    assert tasks.find_task(connection, "other", "t").asked is None
    assert tasks.ask(connection, "acme", "unknown", "delete") is None


def test_a_cancel_neither_touches_an_ended_task_nor_takes_a_delete_back(connection):
    add(connection, DONE, task_id="ended")
    tasks.ask(connection, "acme", "ended", "cancel")
    assert tasks.find_task(connection, "acme", "ended").asked is None
    add(connection)
    tasks.ask(connection, "acme", "t", "delete")
    tasks.ask(connection, "acme", "t", "cancel")
    assert tasks.find_task(connection, "acme", "t").asked == "delete"


def test_removals_are_due_when_asked_for_or_when_their_time_has_come(connection):
    add(connection, replace(DONE, expires_us=500), task_id="expires")
    add(connection, DONE, task_id="kept")
    add(connection, DONE, task_id="asked")
    add(connection, replace(DONE, status="failed", archive=None), task_id="failed, asked")
    add(connection, task_id="running, asked")
    for task_id in ("asked", "failed, asked", "running, asked"):
        tasks.ask(connection, "acme", task_id, "delete")
    assert names(tasks.due_removals(connection, 499)) == ["asked", "failed, asked"]
    assert names(tasks.due_removals(connection, 500)) == ["asked", "expires", "failed, asked"]
    for task_id, removal in (("asked", "deleted"), ("failed, asked", "deleted"), ("expires", "expired")):
        tasks.set_removed(connection, "acme", task_id, removal)
    assert tasks.due_removals(connection, 10**15) == []


def test_callbacks_are_due_until_they_are_settled(connection):
    add(connection, replace(DONE, callback="due", ended_us=2), task_id="b")
    add(connection, replace(DONE, callback="due", ended_us=1), task_id="c")
    add(connection, DONE, task_id="a")
    assert names(tasks.due_callbacks(connection)) == ["c", "b"]
    tasks.set_called_back(connection, "acme", "c")
    assert names(tasks.due_callbacks(connection)) == ["b"]


def test_only_tasks_with_nothing_left_to_do_are_forgotten(connection):
    add(connection, replace(DONE, archive=None, status="failed"), task_id="failed")
    add(connection, replace(DONE, archive="expired"), task_id="expired")
    add(connection, DONE, task_id="kept")
    add(connection, replace(DONE, archive="deleted", callback="due"), task_id="owed")
    add(connection, replace(DONE, archive=None, status="failed"), task_id="to be answered")
    tasks.ask(connection, "acme", "to be answered", "delete")
    add(connection, task_id="running")
    assert tasks.forget_tasks(connection, 100) == 0
    assert tasks.forget_tasks(connection, 101) == 2
    left = {row[0] for row in connection.execute("SELECT task_id FROM tasks")}
    assert left == {"kept", "owed", "to be answered", "running"}


def test_the_table_of_version_1_is_brought_to_the_present_one_with_its_rows(connection):
    old = sqlite3.connect(":memory:")
    old.execute(VERSION_1)
    for status in ("pending", "in_progress", "done", "failed", "cancelled"):
        old.execute("INSERT INTO tasks VALUES ('acme', ?, ?, x'7b7d', 7, 9)", (status, status))
    for statement in statements(UPGRADE_1_TO_2):
        old.execute(statement)
    shape = "SELECT name, type, \"notnull\", pk FROM pragma_table_info('tasks') ORDER BY cid"
    assert old.execute(shape).fetchall() == connection.execute(shape).fetchall()
    assert tasks.find_task(old, "acme", "done") == StoredTask(
        "acme", "done", "done", b"{}", 7, 9, ended_us=7, archive="kept"
    )
    assert tasks.find_task(old, "acme", "failed").archive is None
    assert names(tasks.unfinished_tasks(old)) == ["in_progress", "pending"]
    assert tasks.due_removals(old, 10**15) == []
    assert tasks.forget_tasks(old, 100) == 2
    old.close()
