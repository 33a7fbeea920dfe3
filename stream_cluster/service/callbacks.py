"""HTTP calls that tell the sender of a task that it has ended.

A callback is owed from the moment the task's end is stored until it is delivered or given up, across
restarts, so it comes at least once. It never changes what became of the task.

Who may be called is a list of hosts. No redirect is followed, no proxy is used, and a name that leads to an
address of a private network is refused unless that address is on the list itself: a task must not become a
way into the network of the service. The address that is checked is the one that is connected to.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import random
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from stream_cluster import __version__
from stream_cluster.config.settings import CallbackSettings
from stream_cluster.errors import Cancelled, StreamClusterError
from stream_cluster.messages import TaskRequest, decode_task
from stream_cluster.service.clock import now_us
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.snapshot.images.web import PrivateAddress, is_public
from stream_cluster.state import tasks as stored_tasks

_log = get_logger(__name__)
SIGNATURE_HEADER = "X-Stream-Cluster-Signature"
_MAX_PAUSE_S = 300.0
_CALLS_AT_ONCE = 16
_PORTS = {"http": 80, "https": 443}
# Answers that a later call may turn into a success.
_PASSING = frozenset({408, 425, 429})


def sign(secret: str, timestamp_s: int, body: bytes) -> str:
    """Value of the signature header: `t=<seconds>,v1=<hex>`, HMAC-SHA256 of `<seconds>.<body>`."""
    digest = hmac.new(secret.encode(), b"%d." % timestamp_s + body, hashlib.sha256).hexdigest()
    return f"t={timestamp_s},v1={digest}"


class AllowedHosts:
    """The hosts that may be called."""

    def __init__(self, text: str) -> None:
        """`text`: `host,host:port`. A host without a port stands for the port of the URL's scheme."""
        entries = [urlsplit(f"//{entry.strip()}") for entry in text.split(",") if entry.strip()]
        self._entries = {((entry.hostname or "").lower(), entry.port) for entry in entries}

    def problem(self, url: str) -> str | None:
        """Why the URL may not be called; None when it may."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            return f"callback_url: {error}"
        if parts.username is not None or parts.password is not None:
            return "callback_url: found credentials in the URL, expected none"
        usual = _PORTS.get(parts.scheme)
        if usual is None:
            return f"callback_url: found scheme {parts.scheme!r}, expected http or https"
        if (host, port or usual) in self._entries or (
            (host, None) in self._entries and port in {None, usual}
        ):
            return None
        shown = host if port is None else f"{host}:{port}"
        return f"callback_url: host {shown} is not allowed; callbacks.allowed_hosts does not name it"

    def allows_address(self, address: str, port: int) -> bool:
        """Whether a host name may lead there: a public address, or one that is on the list itself."""
        return (
            is_public(address)
            or (address, port) in self._entries
            or ((address, None) in self._entries and port in _PORTS.values())
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one call."""

    delivered: bool
    passing: bool
    """Whether another try makes sense."""
    detail: str


class Callbacks:
    """Delivers what is owed."""

    def __init__(self, settings: CallbackSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._allowed = AllowedHosts(settings.allowed_hosts)
        self._places = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None
        self._calls: dict[asyncio.Task[None], PartitionRunner] = {}

    def problem(self, url: str | None) -> str | None:
        """Why a task may not have this callback_url."""
        return None if url is None else self._allowed.problem(url)

    def owe(self, runner: PartitionRunner, account_id: str, task_id: str, url: str, body: bytes) -> None:
        """Deliver the body in the background; the task's row says that it is owed."""
        call = asyncio.create_task(
            self._deliver(runner, account_id, task_id, url, body), name=f"callback-{task_id}"
        )
        self._calls[call] = runner
        call.add_done_callback(self._calls.pop)

    async def resume(self, runner: PartitionRunner) -> None:
        """Deliver what an earlier process did not."""
        due = await runner.between_batches(
            lambda: runner.in_engine(runner.partition.change_tasks, stored_tasks.due_callbacks)
        )
        for stored in due:
            task = decode_task(stored.request)
            if isinstance(task, TaskRequest) and task.callback_url and stored.last_status is not None:
                self.owe(runner, stored.account_id, stored.task_id, task.callback_url, stored.last_status)

    async def abandon(self, runner: PartitionRunner | None = None) -> None:
        """Stop the calls of a partition, or all; they stay owed."""
        calls = [call for call, owner in self._calls.items() if runner in {None, owner}]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if runner is None and self._session is not None:
            await self._session.close()
            self._session = None

    async def _deliver(
        self, runner: PartitionRunner, account_id: str, task_id: str, url: str, body: bytes
    ) -> None:
        answer = await self._until_delivered(url, body)
        job = {"task_id": task_id, "partition": runner.number}
        about = {**job, "host": urlsplit(url).netloc, "detail": answer.detail}
        if answer.delivered:
            _log.info("callback_delivered", **about)
        else:
            _log.warning("callback_given_up", **about)
        self._metrics.callbacks.labels("delivered" if answer.delivered else "given_up").inc()
        try:
            await runner.between_batches(
                lambda: runner.in_engine(
                    runner.partition.change_tasks, stored_tasks.set_called_back, account_id, task_id
                )
            )
        except Cancelled:
            pass  # the partition went away: its next owner calls again
        except StreamClusterError as error:
            _log.warning("callback_not_stored", **job, error=str(error))

    async def _until_delivered(self, url: str, body: bytes) -> Answer:
        pause_s = self._settings.backoff_s
        for attempt in range(1, self._settings.attempts + 1):
            # Asked each time: the list may have changed since the task was read.
            if problem := self._allowed.problem(url):
                return Answer(delivered=False, passing=False, detail=problem)
            async with self._places:
                answer = await self._call(url, body)
            if answer.delivered or not answer.passing or attempt == self._settings.attempts:
                return answer
            self._metrics.callbacks.labels("retried").inc()
            # Jitter: tasks that ended together do not call again together.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)
        raise AssertionError("at least one attempt is made")

    async def _call(self, url: str, body: bytes) -> Answer:
        assert self._settings.secret is not None  # settings with hosts and without a secret are refused
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"stream-cluster/{__version__}",
            SIGNATURE_HEADER: sign(self._settings.secret, now_us() // 1_000_000, body),
        }
        try:
            async with self._connection().post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Answer(delivered=False, passing=True, detail=f"{type(error).__name__}: {error}")
        return Answer(
            delivered=200 <= status < 300,
            passing=status >= 500 or status in _PASSING,
            detail=f"HTTP status {status}" + (", redirects are not followed" if 300 <= status < 400 else ""),
        )

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        """The socket for an address that is about to be connected to, after every look-up."""
        family, kind, protocol, _, target = address
        if not self._allowed.allows_address(target[0], target[1]):
            raise PrivateAddress(errno.EPERM, f"{target[0]} is not a public address")
        return socket.socket(family, kind, protocol)

    def _connection(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    socket_factory=self._socket, use_dns_cache=False, force_close=True
                ),
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
