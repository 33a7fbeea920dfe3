"""Health and metrics over HTTP: /livez, /readyz, /metrics, and if wanted the status page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from stream_cluster.config.settings import HttpSettings
from stream_cluster.errors import ConfigError
from stream_cluster.service.status_page import StatusPage

Check = Callable[[], list[str]]
"""Returns what is wrong; nothing when all is well."""


class HttpServer:
    """Serves the three paths, those of the status page if there is one, and nothing else."""

    def __init__(
        self,
        settings: HttpSettings,
        registry: CollectorRegistry,
        live: Check,
        ready: Check,
        *,
        refresh: Callable[[], None],
        status_page: StatusPage | None = None,
    ) -> None:
        """`refresh` brings gauges up to date before a scrape."""
        self._settings = settings
        self._registry = registry
        self._refresh = refresh
        application = web.Application()
        application.router.add_get("/livez", _probe(live))
        application.router.add_get("/readyz", _probe(ready))
        application.router.add_get("/metrics", self._metrics)
        if status_page is not None:
            status_page.add_to(application)
        self._runner = web.AppRunner(application, access_log=None)
        self.port = settings.port
        """The port listened on, once started."""

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"http.host {self._settings.host}, http.port {self._settings.port}: {error.strerror or error}"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        self._refresh()
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        if problems := check():
            return web.Response(status=503, text="".join(f"{problem}\n" for problem in problems))
        return web.Response(text="ok\n")

    return answer
