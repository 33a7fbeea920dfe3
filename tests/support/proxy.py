"""A TCP proxy that can cut, silence and slow the connections through it. It runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass

from stream_cluster.sandbox.properties import free_ports

HOST = "127.0.0.1"
_CHUNK_BYTES = 16 * 1024


@dataclass
class Weather:
    """How the network is at the moment."""

    is_cut: bool = False
    """Every connection is reset, and new ones too."""
    is_silent: bool = False
    """Connections stay open, new ones are taken, and no byte comes through: what a firewall does that "
    "drops."""
    latency_s: float = 0.0
    """Of each chunk, one way."""
    bytes_per_s: float | None = None
    """Of each direction of a connection."""


class Proxy:
    """Between clients and one address. A context manager."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.address = f"{HOST}:{self.port}"
        self.target: tuple[str, int] | None = None
        """Where connections go; none is taken before it is set."""
        self.weather = Weather()
        self.connections = 0
        """Taken since the start."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._clear = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._open()).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def point_at(self, address: str) -> None:
        """Send connections to host:port."""
        host, _, port = address.partition(":")
        self.target = host, int(port)

    def cut(self) -> None:
        """Reset everything, until `mend`."""
        self._call(self._change(is_cut=True)).result(10)

    def silence(self) -> None:
        """Let nothing through, until `mend`."""
        self._call(self._change(is_silent=True)).result(10)

    def slow(self, latency_s: float, bytes_per_s: float) -> None:
        """Let everything through, late and thinly, until `mend`."""
        self._call(self._change(latency_s=latency_s, bytes_per_s=bytes_per_s)).result(10)

    def mend(self) -> None:
        """A good network again. What was sent into a silence arrives, as from a queue of the network."""
        self._call(self._change()).result(10)

    def _call(self, work) -> Future:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> None:
        self._clear.set()
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def _close(self) -> None:
        self._server.close()
        self._drop_all()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _change(self, **weather) -> None:
        self.weather = Weather(**weather)
        if self.weather.is_silent:
            self._clear.clear()
        else:
            self._clear.set()
        if self.weather.is_cut:
            self._drop_all()

    def _drop_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.weather.is_cut or self.target is None:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await self._clear.wait()
            there, back = await asyncio.open_connection(*self.target)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(back)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            pumps = [asyncio.create_task(self._pump(*pair)) for pair in ((reader, back), (there, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        for one in (writer, back):
            self._writers.discard(one)
            one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._clear.wait()
            weather = self.weather
            if weather.latency_s:
                await asyncio.sleep(weather.latency_s)
            if weather.bytes_per_s:
                await asyncio.sleep(len(data) / weather.bytes_per_s)
            writer.write(data)
            await writer.drain()
