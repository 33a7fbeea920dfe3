"""Ctrl-C and SIGTERM for work that ends cleanly when asked."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

import typer

from stream_cluster.errors import Cancelled
from stream_cluster.model import Interrupt

_T = TypeVar("_T")
_CANCEL_AGAIN_S = 0.5


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


def run_until_interrupted(work: Coroutine[Any, Any, _T]) -> _T:
    """`asyncio.run`, where Ctrl-C ends the work even if a library loses a cancellation.

    `asyncio.wait_for` before Python 3.12 drops one that comes together with its result, and then the single
    cancellation of `asyncio.run` has no effect.

    Raises:
        KeyboardInterrupt: on SIGINT, once the work has ended.
    """
    interrupted = asyncio.Event()

    async def until_done() -> asyncio.Task[_T]:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
        stop = asyncio.ensure_future(interrupted.wait())
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        while interrupted.is_set() and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
        return task

    task = asyncio.run(until_done())
    if interrupted.is_set():
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain that nobody did
        raise KeyboardInterrupt
    return task.result()
