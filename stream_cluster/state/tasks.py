"""Tasks of a partition: what was read from the task topic, what became of it, and what is left to do.

A row says four things that are independent of each other: how the task stands (`status`), what its account
asked for since (`asked`), whether its archive is there (`archive`), and whether its callback is still owed
(`callback`). Everything that must outlive the process is here, so a restart goes on from the rows alone.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Literal

TaskState = Literal["pending", "in_progress", "done", "failed", "cancelled"]
Asked = Literal["cancel", "delete"]
Removal = Literal["deleted", "expired"]


@dataclass(frozen=True, slots=True)
class StoredTask:
    """One task as the partition remembers it. Fields have the names and the order of the columns."""

    account_id: str
    task_id: str
    status: TaskState
    request: bytes
    """The task message as JSON."""
    read_time_us: int
    """When the task was read; `create_time__lt` and `deadline_s` count from it."""
    barrier: int
    """The task waits until the partition's next_offset reaches this offset."""
    asked: Asked | None = None
    """A cancel or delete request that came after the task."""
    ended_us: int | None = None
    """When it was done, failed or cancelled."""
    last_status: bytes | None = None
    """Its last status as JSON; the body of its callback."""
    archive: Literal["kept"] | Removal | None = None
    """None: there never was one."""
    expires_us: int | None = None
    """When the archive is removed; None: not before somebody asks."""
    callback: Literal["due"] | None = None
    """`due` until the callback is delivered or given up."""


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """What is stored when a task has had its last status."""

    status: TaskState
    ended_us: int
    last_status: bytes
    archive: Literal["kept"] | Removal | None
    expires_us: int | None
    callback: Literal["due"] | None


_COLUMNS = ", ".join(field.name for field in fields(StoredTask))
_SELECT = f"SELECT {_COLUMNS} FROM tasks"
_ONE = "account_id = ? AND task_id = ?"
_ENDED = "status IN ('done', 'failed', 'cancelled')"


def add_task(connection: sqlite3.Connection, task: StoredTask) -> bool:
    """Store a new task; False when this account has a task of that id already."""
    marks = ", ".join("?" * len(fields(StoredTask)))
    cursor = connection.execute(
        f"INSERT OR IGNORE INTO tasks ({_COLUMNS}) VALUES ({marks})",
        tuple(getattr(task, field.name) for field in fields(StoredTask)),
    )
    return cursor.rowcount == 1


def find_task(connection: sqlite3.Connection, account_id: str, task_id: str) -> StoredTask | None:
    """One task, None when it is not known."""
    row = connection.execute(f"{_SELECT} WHERE {_ONE}", (account_id, task_id)).fetchone()
    return None if row is None else StoredTask(*row)


def ask(connection: sqlite3.Connection, account_id: str, task_id: str, asked: Asked) -> StoredTask | None:
    """Remember a cancel of a task that has not ended, or a delete. Returns the task as it was, None: unknown.

    A delete is never taken back by a cancel.
    """
    found = find_task(connection, account_id, task_id)
    only = "" if asked == "delete" else f" AND asked IS NULL AND NOT {_ENDED}"
    connection.execute(f"UPDATE tasks SET asked = ? WHERE {_ONE}{only}", (asked, account_id, task_id))
    return found


def end_task(connection: sqlite3.Connection, account_id: str, task_id: str, end: TaskEnd) -> bool:
    """Remember how a task ended. Returns whether its account asked for it to be deleted."""
    names = [field.name for field in fields(TaskEnd)]
    connection.execute(
        f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in names)} WHERE {_ONE}",
        (*(getattr(end, name) for name in names), account_id, task_id),
    )
    sql = f"SELECT count(*) FROM tasks WHERE {_ONE} AND asked = 'delete'"
    return bool(connection.execute(sql, (account_id, task_id)).fetchone()[0])


def unfinished_tasks(connection: sqlite3.Connection) -> list[StoredTask]:
    """Tasks that have not ended, in the order they were read."""
    rows = connection.execute(
        f"{_SELECT} WHERE status IN ('pending', 'in_progress') ORDER BY read_time_us, account_id, task_id"
    )
    return [StoredTask(*row) for row in rows]


def ended_tasks(connection: sqlite3.Connection, limit: int) -> list[StoredTask]:
    """The tasks that ended last and have their last status here, the latest first."""
    rows = connection.execute(
        f"{_SELECT} WHERE {_ENDED} AND last_status IS NOT NULL ORDER BY ended_us DESC, account_id, task_id "
        "LIMIT ?",
        (limit,),
    )
    return [StoredTask(*row) for row in rows]


def due_removals(connection: sqlite3.Connection, now_us: int) -> list[StoredTask]:
    """Ended tasks whose archive is to be removed: asked for and not answered yet, or past its time."""
    rows = connection.execute(
        f"{_SELECT} WHERE {_ENDED} AND (asked = 'delete' AND (archive IS NULL OR archive = 'kept') "
        "OR archive = 'kept' AND expires_us <= ?) ORDER BY account_id, task_id",
        (now_us,),
    )
    return [StoredTask(*row) for row in rows]


def set_removed(connection: sqlite3.Connection, account_id: str, task_id: str, removal: Removal) -> None:
    """Remember that the archive is gone, and that this was said."""
    connection.execute(f"UPDATE tasks SET archive = ? WHERE {_ONE}", (removal, account_id, task_id))


def due_callbacks(connection: sqlite3.Connection) -> list[StoredTask]:
    """Tasks whose callback is neither delivered nor given up, in the order they ended."""
    rows = connection.execute(f"{_SELECT} WHERE callback = 'due' ORDER BY ended_us, account_id, task_id")
    return [StoredTask(*row) for row in rows]


def set_called_back(connection: sqlite3.Connection, account_id: str, task_id: str) -> None:
    """Remember that nothing is owed to the callback any more."""
    connection.execute(f"UPDATE tasks SET callback = NULL WHERE {_ONE}", (account_id, task_id))


def forget_tasks(connection: sqlite3.Connection, ended_before_us: int) -> int:
    """Drop tasks that ended before a time; returns how many.

    One stays as long as its archive is there, because the row is what finds the archive, and as long as its
    callback is owed.
    """
    cursor = connection.execute(
        f"DELETE FROM tasks WHERE {_ENDED} AND ended_us < ? AND callback IS NULL "
        "AND (archive IS NULL AND asked IS NOT 'delete' OR archive IN ('deleted', 'expired'))",
        (ended_before_us,),
    )
    return cursor.rowcount
