"""From the local file of an archive to the result store, without waiting for a store that hangs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from stream_cluster.errors import Cancelled, ResultsUnavailable, TaskError
from stream_cluster.model import Interrupt, Progress
from stream_cluster.service.logs import get_logger
from stream_cluster.service.result_store import ResultStore
from stream_cluster.service.threads import in_daemon, until

_log = get_logger(__name__)


class Uploads:
    """Puts archives into a store."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._clean_ups: set[asyncio.Task[None]] = set()

    async def put(
        self,
        name: PurePosixPath,
        file: Path,
        interrupt: Interrupt,
        progress: Progress,
        is_abandoned: Callable[[], bool],
        *,
        about: Mapping[str, str | int],
    ) -> str:
        """Store an archive; returns where to get it. `about` stands in each log line.

        A cancel or a passed deadline ends the wait at once, whatever the store does; what it still takes is
        removed, unless the task is abandoned: then whoever goes on with it stores the same archive.

        Raises:
            Cancelled, TaskError: by `interrupt`.
            ResultsUnavailable: the store did not take it.
        """

        def put() -> str:
            self._store.put(name, file, interrupt, progress)
            return self._store.access_url(name)

        upload = in_daemon(put, "upload-archive")
        try:
            await until(interrupt, asyncio.shield(upload))
            return upload.result()
        except (Cancelled, TaskError):
            clean_up = asyncio.create_task(
                self._take_back(name, upload, is_abandoned, about), name="take-back"
            )
            self._clean_ups.add(clean_up)
            clean_up.add_done_callback(self._clean_ups.discard)
            raise

    async def _take_back(
        self,
        name: PurePosixPath,
        upload: asyncio.Future[str],
        is_abandoned: Callable[[], bool],
        about: Mapping[str, str | int],
    ) -> None:
        """Remove an archive whose last bytes were on their way when its task was stopped."""
        try:
            with contextlib.suppress(Cancelled, TaskError):
                await upload
                if not is_abandoned():
                    await in_daemon(lambda: self._store.delete(name), "delete-archive")
        except ResultsUnavailable as error:
            _log.warning("archive_not_removed", **about, archive=str(name), error=str(error), retrying=False)
