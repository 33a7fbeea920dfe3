"""What `task submit --wait` and `task watch` show while a task goes on."""

from __future__ import annotations

import io

import pytest
from msgspec import structs
from rich.console import Console

from stream_cluster.cli import task_progress as module
from stream_cluster.cli.task_progress import STAGES, task_progress, warn_of
from stream_cluster.messages import TaskStatus, TaskWarning


def status(stage, progress, state="in_progress"):
    return TaskStatus(
        task_id="t", account_id="a", status=state, progress=progress, time="2026-05-01T10:00:00Z", stage=stage
    )


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def screen(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda **_: Console(file=shown, force_terminal=True, width=100))
    return shown


def test_on_a_terminal_there_is_a_bar_for_the_task_and_a_line_for_each_stage(screen):
    with task_progress() as progress:
        progress(status(None, 0.0, "pending"))
        progress(status("select", 0.05))
        progress(status("match", 0.25))
        progress(status("match", 0.43))
        progress(status("something new", 0.5))
        bars = progress._bars
        assert [task.description.strip() for task in bars.tasks] == [
            "task",
            STAGES["wait"],
            "selecting",
            "matching",
            "something new",
        ]
        whole, *over, present = bars.tasks
        assert whole.completed == 0.5
        assert whole.fields["note"] == "50%"
        assert all(task.finished for task in over)
        assert present.total is None
    assert "50%" in screen.getvalue()


def test_ctrl_c_leaves_no_bars_and_a_cursor(screen):
    def interrupted():
        with task_progress() as progress:
            progress(status("match", 0.25))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    show_cursor, erase_line = "\x1b[?25h", "\x1b[2K"
    assert show_cursor in screen.getvalue()
    assert screen.getvalue().rstrip("\r\n").endswith(erase_line)


def test_without_a_terminal_there_is_a_line_for_each_stage_and_every_few_seconds(clock, capsys):
    with task_progress() as progress:
        progress(status("select", 0.05))  # over soon: nothing is said yet
        for step in range(1, 25):
            clock.now += 0.5
            progress(status("match", step / 48))
        clock.now += 0.5
        progress(status("report", 0.8))
        progress(status(None, 1.0, "done"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "task 8% matching",
        "task 29% matching",
        "task 50% matching",
        "task 80% writing the report",
    ]


def test_warnings_of_a_status_are_shown(capsys):
    done = status(None, 1.0, "done")
    warn_of(done)
    warnings = [
        TaskWarning(
            code="bridges",
            message=message,
            cluster=0,
            id="a",
            size=9,
            share=0.4,
            bridges=1,
            pair=["a", "b"],
            objects=["a", "b"],
        )
        for message in ("one cluster holds 40%", "weak bridges")
    ]
    warn_of(structs.replace(done, warnings=warnings))
    assert capsys.readouterr().err == "warning: one cluster holds 40%\nwarning: weak bridges\n"
