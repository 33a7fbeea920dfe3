"""Tasks of a partition: what was read from the task topic and what became of it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

TaskState = Literal["pending", "in_progress", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class StoredTask:
    """One task as the partition remembers it."""

    account_id: str
    task_id: str
    status: TaskState
    request: bytes
    """The task message as JSON."""
    read_time_us: int
    """When the task was read; `create_time__lt` defaults to it."""
    barrier: int
    """The task waits until the partition's next_offset reaches this offset."""


def add_task(connection: sqlite3.Connection, task: StoredTask) -> bool:
    """Store a new task; False when this account has a task of that id already."""
    cursor = connection.execute(
        "INSERT OR IGNORE INTO tasks (account_id, task_id, status, request, read_time_us, barrier) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (task.account_id, task.task_id, task.status, task.request, task.read_time_us, task.barrier),
    )
    return cursor.rowcount == 1


def set_task_status(connection: sqlite3.Connection, account_id: str, task_id: str, status: TaskState) -> None:
    """Remember a task's new status."""
    connection.execute(
        "UPDATE tasks SET status = ? WHERE account_id = ? AND task_id = ?", (status, account_id, task_id)
    )


def unfinished_tasks(connection: sqlite3.Connection) -> list[StoredTask]:
    """Tasks that have not ended, in the order they were read."""
    rows = connection.execute(
        f"{_SELECT} WHERE status IN ('pending', 'in_progress') ORDER BY read_time_us, account_id, task_id"
    )
    return [StoredTask(*row) for row in rows]


_SELECT = "SELECT account_id, task_id, status, request, read_time_us, barrier FROM tasks"
