"""Ctrl-C and SIGTERM for work that ends cleanly when asked."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import typer

from stream_cluster.errors import Cancelled
from stream_cluster.model import Interrupt


@contextlib.contextmanager
def stoppable(aftermath: str = "nothing was written") -> Iterator[Interrupt]:
    """An `Interrupt` that the first SIGINT or SIGTERM sets; a second one ends the work where it stands.

    Work that was cancelled ends the command with 128 + the signal's number, as shells expect, and a line
    on stderr that tells the `aftermath`.
    """
    interrupt = Interrupt()
    received: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        received.append(number)
        if interrupt.cancelled:
            raise KeyboardInterrupt
        interrupt.cancel()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    except Cancelled as error:
        typer.echo(f"interrupted; {aftermath}", err=True)
        raise typer.Exit(128 + received[0] if received else 130) from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
