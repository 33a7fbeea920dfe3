"""All images of a snapshot into its archive, in the archive's order, several under way at a time.

The order of the entries is that of the clusters and not of the answers, so that equal images give equal
bytes. At most `images.concurrency` images are held in memory: those under way, and those that are there
already but wait for one before them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from stream_cluster.config import ImageSettings
from stream_cluster.model import Interrupt, Progress
from stream_cluster.snapshot.images.faults import ImageFault
from stream_cluster.snapshot.images.fetch import Fetcher, Image
from stream_cluster.snapshot.paths import safe_name

# How soon a cancel, a deadline or the end of the total time is noticed while nothing comes in.
_POLL_S = 0.2
_PROGRESS_EVERY = 64


class Wanted(NamedTuple):
    """An object whose image is asked for."""

    cluster: int
    object_id: str
    reference: str | None
    position: int = 0
    """Of the object in its selection."""


def entry_name(wanted: Wanted, extension: str) -> str:
    """Name of an image in the archive: `images/<cluster>/<object id>.<ext>`, the id as a safe file name."""
    return f"images/{wanted.cluster}/{safe_name(wanted.object_id)}.{extension}"


def save_images(
    wanted: Iterable[Wanted],
    total: int,
    write: Callable[[str, bytes], None],
    settings: ImageSettings,
    *,
    account_id: str,
    interrupt: Interrupt,
    progress: Progress,
    saved: Callable[[Wanted, str], None] = lambda *_: None,
) -> dict[str, int]:
    """Fetch the images and write each as `write(entry name, bytes)`, from this thread, in order.

    Args:
        saved: told of each that was written, with its extension.
        wanted: `total` objects in the order of the archive; read as the work goes on.

    Returns the counts for the manifest: `wanted`, which is the sum of `saved` and each `ImageFault`.

    Raises:
        Cancelled, TaskError: asked to stop; noticed within a second.
        OSError: of `write`.
    """
    saving = _Saving(
        total, write=write, tell=saved, settings=settings, interrupt=interrupt, progress=progress
    )
    fetcher = Fetcher(settings, account_id)
    # A loop of its own instead of `asyncio.run`, which at its end would wait for threads that a dead file
    # system or name server holds.
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(settings.concurrency, "images"))
    try:
        loop.run_until_complete(saving.run(wanted, fetcher))
    finally:
        loop.close()
    return saving.counts()


class _Saving:
    """One run of `save_images`."""

    def __init__(
        self,
        total: int,
        *,
        write: Callable[[str, bytes], None],
        tell: Callable[[Wanted, str], None],
        settings: ImageSettings,
        interrupt: Interrupt,
        progress: Progress,
    ) -> None:
        self._total = total
        self._write = write
        self._tell = tell
        self._settings = settings
        self._interrupt = interrupt
        self._progress = progress
        self._ends_at = time.monotonic() + settings.total_timeout_s
        self._saved = 0
        self._saved_bytes = 0
        self._faults: Counter[ImageFault] = Counter()
        self._over = False
        """A total limit was reached: nothing more is saved, all that follows is counted."""

    def counts(self) -> dict[str, int]:
        """Counts for the manifest."""
        faults = {fault.value: self._faults[fault] for fault in ImageFault}
        return {"wanted": self._total, "saved": self._saved, **faults}

    async def run(self, wanted: Iterable[Wanted], fetcher: Fetcher) -> None:
        """Save everything, or raise what ended it. Closes the fetcher."""
        window: deque[tuple[Wanted, asyncio.Task[Image | ImageFault]]] = deque()
        try:
            for number, one in enumerate(wanted):
                self._interrupt.check()
                if number % _PROGRESS_EVERY == 0:
                    self._progress("images", number / self._total)
                if one.reference is None:
                    self._faults[ImageFault.NO_REFERENCE] += 1
                    continue
                if len(window) == self._settings.concurrency:
                    await self._finish(*window[0])
                    window.popleft()
                if self._over:
                    self._faults[ImageFault.OVER_TOTAL_LIMIT] += 1
                else:
                    window.append((one, asyncio.create_task(fetcher.fetch(one.reference))))
            while window:
                await self._finish(*window[0])
                window.popleft()
        finally:
            tasks = [task for _, task in window]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await fetcher.close()
        self._progress("images", 1.0)

    async def _finish(self, wanted: Wanted, task: asyncio.Task[Image | ImageFault]) -> None:
        """Wait for an image, then write or count it."""
        result = await self._result(task)
        if isinstance(result, Image):
            if self._saved_bytes + len(result.data) <= self._settings.total_max_bytes:
                self._write(entry_name(wanted, result.extension), result.data)
                self._tell(wanted, result.extension)
                self._saved += 1
                self._saved_bytes += len(result.data)
                return
            # Smaller ones that would still fit are left out too: a reader can tell where it ended.
            self._over = True
            result = ImageFault.OVER_TOTAL_LIMIT
        self._faults[result] += 1

    async def _result(self, task: asyncio.Task[Image | ImageFault]) -> Image | ImageFault:
        while True:
            self._over |= time.monotonic() > self._ends_at
            if self._over:
                task.cancel()
                await asyncio.wait([task], timeout=_POLL_S)
                return ImageFault.OVER_TOTAL_LIMIT
            if task.done():
                return task.result()
            self._interrupt.check()
            await asyncio.wait([task], timeout=_POLL_S)
