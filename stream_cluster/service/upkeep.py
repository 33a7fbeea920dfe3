"""What a partition does beside its records: old objects go, and what was deleted leaves the files."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from stream_cluster.errors import StateError
from stream_cluster.service.clock import now_us
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.state.partition import Partition

_log = get_logger(__name__)
# A slice must take no longer than a batch does.
_SLICE_OBJECTS = 256
# Bytes of deleted objects are in the write-ahead log for so long, or until the last view from before closes.
_EMPTY_WAL_S = 5.0
_NOTHING_S = 3600.0
_SEARCHED_AGAIN = 64
# Where there was nothing to search for again, the next look is so much later.
_SEARCH_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class UpkeepSettings:
    """Pauses, in seconds."""

    retention_s: float | None = None
    """Between two rounds of deleting what is past its age; None when nothing ever is."""
    vacuum_s: float | None = None
    """Between two rewrites of the database, at least; None for none."""
    second_chance_share: float = 0.0
    """Share of the time that goes into searching again for what cells covered least."""


class Upkeep:
    """Runs between the batches of one partition, a slice at a time."""

    def __init__(
        self,
        partition: Partition,
        settings: UpkeepSettings,
        metrics: Metrics,
        in_engine: Callable[..., Awaitable[Any]],
    ) -> None:
        """`in_engine` runs a function in a thread."""
        self._partition = partition
        self._settings = settings
        self._metrics = metrics
        self._in_engine = in_engine
        self._swept = 0
        searches = settings.second_chance_share > 0
        self._search_at = time.monotonic() + (_SEARCH_AGAIN_S if searches else float("inf"))
        self._sweep_at = time.monotonic() + (0 if settings.retention_s is not None else float("inf"))
        # What an earlier process deleted is looked at once, at the start.
        self._clean_at = time.monotonic() + _EMPTY_WAL_S

    def due_in_s(self) -> float:
        """Seconds until `run` has something to do; not above 0 when it has."""
        due_at = min(self._sweep_at, self._clean_at, self._search_at)
        return min(_NOTHING_S, due_at - time.monotonic())

    async def run(self) -> None:
        """Do what is due. Call it when no batch is under way."""
        if time.monotonic() >= self._sweep_at:
            await self._sweep()
        if time.monotonic() >= self._search_at:
            await self._search_again()
        if self._partition.erased_in_wal:
            self._clean_at = min(self._clean_at, time.monotonic() + _EMPTY_WAL_S)
        if time.monotonic() >= self._clean_at:
            next_s = await self._clean()
            self._clean_at = time.monotonic() + next_s

    async def _sweep(self) -> None:
        """One slice; the rest of the round follows after the batch that waits meanwhile."""
        partition = self._partition
        batch = await self._in_engine(
            lambda: partition.prepare_sweep(now_us(), _SLICE_OBJECTS, begin=not partition.is_sweeping)
        )
        if batch.spaces:
            outcome = await self._in_engine(partition.commit, batch)
            self._metrics.observe_deletions(outcome)
            self._swept += sum(outcome.objects_deleted.values())
        if not partition.is_sweeping:
            self._sweep_at = time.monotonic() + (self._settings.retention_s or 0)
            if self._swept:
                _log.info("retention_swept", partition=partition.identity.partition, objects=self._swept)
            self._swept = 0

    async def _search_again(self) -> None:
        """One slice, and then a pause that leaves the other share of the time to records."""
        partition = self._partition
        began = time.monotonic()
        batch = await self._in_engine(partition.prepare_second_chance, _SEARCHED_AGAIN)
        if batch.spaces:
            await self._in_engine(partition.commit, batch)
        links = {key.descriptor_type: part.links_seen for key, part in batch.spaces.items()}
        self._metrics.observe_second_chance(batch.searched_again, links)
        took_s = time.monotonic() - began
        pause_s = took_s * (1 / self._settings.second_chance_share - 1)
        self._search_at = time.monotonic() + (pause_s if batch.searched_again else _SEARCH_AGAIN_S)

    async def _clean(self) -> float:
        """Rewrite the database if that is due, then empty the log. Returns seconds until the next look."""
        partition = self._partition
        next_s = float("inf")
        if self._settings.vacuum_s is not None:
            next_s = await self._vacuum(self._settings.vacuum_s)
        if partition.erased_in_wal and not await self._in_engine(partition.empty_wal):
            return _EMPTY_WAL_S
        return next_s

    async def _vacuum(self, interval_s: float) -> float:
        partition = self._partition
        due_us: int | None = await self._in_engine(partition.vacuum_due_us, round(interval_s * 1e6))
        if due_us is None:
            return float("inf")
        if (wait_s := (due_us - now_us()) / 1e6) > 0:
            return wait_s
        began = time.monotonic()
        number = partition.identity.partition
        try:
            await self._in_engine(partition.vacuum, now_us())
        except StateError as error:
            # Such as a full disk: the state is as it was, and what is deleted is zeros but for stale copies.
            _log.warning("vacuum_failed", partition=number, error=str(error))
            return interval_s
        _log.info("vacuumed", partition=number, seconds=round(time.monotonic() - began, 3))
        return float("inf")
