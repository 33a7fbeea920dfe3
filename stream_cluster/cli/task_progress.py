"""The progress of a task that is waited for, on stderr: bars by stage on a terminal, else plain lines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from stream_cluster.cli.display import LINE_EVERY_S, SHOW_AFTER_S, warn

if TYPE_CHECKING:
    from stream_cluster.messages import TaskStatus

STAGES = {
    "wait": "waiting for the events before it",
    "select": "selecting",
    "match": "matching",
    "linkage": "merging groups",
    "clusters": "writing clusters",
    "report": "writing the report",
    "images": "saving images",
    "upload": "storing the archive",
}
"""What a person reads; a stage that is not here is shown by its name."""


class TaskProgress:
    """Shows each status of one task. On a terminal a bar for all of it, and below a line for each stage.

    How much of a stage is done no status says, so the present one only moves; one that is over keeps its
    time.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._began = time.monotonic()
        self._last_line = (self._began, "")
        self._bars: Progress | None = None
        self._whole = TaskID(0)
        self._stage: tuple[str, TaskID] | None = None

    def __call__(self, status: TaskStatus) -> None:
        """Show a status."""
        if status.ended:
            return
        stage = status.stage or "wait"
        if self._console.is_terminal:
            self._draw(stage, status.progress)
        else:
            self._line(stage, status.progress)

    def _line(self, stage: str, share: float) -> None:
        """A line for each stage, and every few seconds; none for a task that is over soon."""
        now = time.monotonic()
        said_at, said = self._last_line
        if now - self._began >= SHOW_AFTER_S and (stage != said or now - said_at >= LINE_EVERY_S):
            self._last_line = (now, stage)
            typer.echo(f"task {share:.0%} {STAGES.get(stage, stage)}", err=True)

    def _draw(self, stage: str, share: float) -> None:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._bars.start()
            self._whole = self._bars.add_task("task", total=1.0, note="")
        if self._stage is None or self._stage[0] != stage:
            if self._stage is not None:
                self._bars.update(self._stage[1], total=1.0, completed=1.0)
                self._bars.stop_task(self._stage[1])
            row = self._bars.add_task(f"  {STAGES.get(stage, stage)}", total=None, note="")
            self._stage = (stage, row)
        self._bars.update(self._whole, completed=share, note=f"{share:.0%}")

    def close(self) -> None:
        """Remove the bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


@contextlib.contextmanager
def task_progress() -> Iterator[TaskProgress]:
    """A display that is removed at the end, however the waiting ends."""
    display = TaskProgress()
    try:
        yield display
    finally:
        display.close()


def warn_of(status: TaskStatus) -> None:
    """Write the warnings that a status carries to stderr."""
    for warning in status.warnings or ():
        warn(warning.message)
