from __future__ import annotations

import io

import pytest
import typer
from rich.console import Console

from stream_cluster.cli import display
from stream_cluster.cli.display import progress_display
from stream_cluster.cli.tasks import _end
from stream_cluster.service.statuses import make_status

GROUPS = {"read": ("reading", ""), "match": ("clustering", "matching"), "report": ("clustering", "writing")}


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(display.time, "monotonic", lambda: Clock.now)
    return Clock


def test_work_that_is_over_soon_shows_nothing(clock, capsys):
    with progress_display(GROUPS) as progress:
        progress("read", 0.5)
        clock.now += 1.9
        progress("read", 1.0)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_plain_line_every_few_seconds(clock, capsys):
    with progress_display(GROUPS) as progress:
        for step in range(1, 25):
            clock.now += 0.5
            progress("match", step / 24)
        clock.now += 5
        progress("read", 0.0, "7 messages")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["clustering 42% matching", "clustering 83% matching", "reading 7 messages"]


def test_on_a_terminal_stages_of_one_scale_share_a_bar(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(display, "SHOW_AFTER_S", 0.0)
    monkeypatch.setattr(display, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    with progress_display(GROUPS) as progress:
        progress("match", 0.25)
        progress("report", 0.75)
    shown = screen.getvalue()
    assert "75% writing" in shown
    assert shown.count("\n") == 1, "one bar is one line"


def test_a_wait_that_gives_up_says_how_many_records_the_task_still_waits_for(capsys):
    status = make_status("acme", "t", "in_progress", 0.0, stage="wait", records_to_barrier=1234)
    with pytest.raises(typer.Exit):
        _end(status, 5.0, as_json=False)
    assert "the task is in_progress (wait, 0%, 1234 records to go) after 5 s" in capsys.readouterr().err
