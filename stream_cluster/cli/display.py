"""What commands show beside their result: progress on stderr, small tables on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from stream_cluster.offline.load import LoadReport

SHOW_AFTER_S = 2.0
"""Work that is over sooner shows no progress at all."""
LINE_EVERY_S = 5.0
"""Pause between two lines of progress where there is no terminal."""


class ProgressDisplay:
    """A `stream_cluster.model.Progress` that draws bars on a terminal and writes plain lines elsewhere.

    Stages that share one scale share one bar. Thread-safe.
    """

    def __init__(self, groups: Mapping[str, tuple[str, str]]) -> None:
        """`groups`: the bar of each stage, and the note beside it; a stage not named has its own bar."""
        self._groups = groups
        self._console = Console(stderr=True)
        self._began = time.monotonic()
        self._last_line_at = self._began
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, stage: str, share: float, note: str = "") -> None:
        """Show that `share` of the stage's bar is done; a share of 0 that stays shows as "at work"."""
        now = time.monotonic()
        if now - self._began < SHOW_AFTER_S:
            return
        with self._lock:
            name, stage_note = self._groups.get(stage, (stage, ""))
            note = note or stage_note
            if self._console.is_terminal:
                self._draw(name, share, note)
            elif now - self._last_line_at >= LINE_EVERY_S:
                self._last_line_at = now
                percent = f" {share:.0%}" if share else ""
                typer.echo(f"{name}{percent}{f' {note}' if note else ''}", err=True)

    def _draw(self, name: str, share: float, note: str) -> None:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}% {task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1.0, note="")
        total = 1.0 if share else None
        self._bars.update(self._tasks[name], completed=share, total=total, note=note)

    def close(self) -> None:
        """Remove the bars."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                self._bars = None


@contextlib.contextmanager
def progress_display(groups: Mapping[str, tuple[str, str]] | None = None) -> Iterator[ProgressDisplay]:
    """A display that is removed at the end, however the work ends."""
    display = ProgressDisplay(groups or {})
    try:
        yield display
    finally:
        display.close()


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values, aligned, on stdout."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    print_table(grid)


def print_table(table: Table) -> None:
    """A table on stdout, as wide as it needs when stdout is not a terminal."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 200)
    console.print(table)
    sys.stdout.flush()


def engine_text(matching: Mapping[str, Any]) -> str:
    """The engine that found links, and its recall where it may have missed some."""
    recall = matching["recall"]
    if recall is None or recall["share"] is None:
        return str(matching["engine"])
    interval = f"{recall['low']:.2%} to {recall['high']:.2%}"
    return f"{matching['engine']}, {recall['share']:.2%} of the links ({interval})"


def warn(message: str) -> None:
    """Write `warning: …` to stderr."""
    typer.echo(f"warning: {message}", err=True)


def warn_rejected(load: LoadReport) -> None:
    """Say how many records of a file were rejected and why; nothing when none were."""
    rejected = sum(load.rejected.values())
    if rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in load.rejected.most_common())
        examples = "".join(f"\n  {example}" for example in load.examples)
        warn(f"{rejected:,} of {load.records:,} records were rejected ({reasons}):{examples}")


def place_of(url: str) -> str:
    """The address of an archive as a person types it: the path of a file, else the address itself."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else url
