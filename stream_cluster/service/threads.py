"""Blocking calls to the outside world, which may hang for as long as the outside world likes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stream_cluster.model import Interrupt

_T = TypeVar("_T")
# How soon a wait notices a cancel or a passed deadline.
_POLL_S = 0.2


def in_daemon(function: Callable[[], _T], name: str) -> asyncio.Future[_T]:
    """Run a function in a thread of its own that does not keep the process from ending.

    An executor's threads are waited for when the interpreter ends; a store that does not answer would hold
    it for all its retries.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # None only where _T allows it
        else:
            future.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:
            failure = error
        # The loop may be closed by now; then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


async def until(interrupt: Interrupt, awaitable: Awaitable[object]) -> None:
    """Wait for something, but not beyond a cancel or a deadline. What it raises is not raised here.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    waiting = asyncio.ensure_future(awaitable)
    try:
        while not waiting.done():
            interrupt.check()
            await asyncio.wait([waiting], timeout=_POLL_S)
    finally:
        waiting.cancel()
