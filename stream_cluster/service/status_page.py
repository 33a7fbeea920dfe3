"""The status page: /status, which is whole in itself, and /status.json, which it asks every other second."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import msgspec
from aiohttp import web

FRESH_S = 1.0
"""However many pages look, the facts are gathered once in this time."""


class StatusPage:
    """Serves both paths. Read only; nothing on the page comes from, or goes to, anywhere else."""

    def __init__(self, report: Callable[[], Mapping[str, Any]]) -> None:
        """`report`: the facts as JSON values."""
        self._report = report
        self._page = resources.files("stream_cluster.service").joinpath("status.html").read_text("utf-8")
        self._policy = content_policy(self._page)
        self._facts = b""
        self._gathered_at = float("-inf")

    def add_to(self, application: web.Application) -> None:
        """Add the paths."""
        application.router.add_get("/status", self._html)
        application.router.add_get("/status.json", self._json)

    async def _html(self, _: web.Request) -> web.Response:
        headers = _HEADERS | {"Content-Security-Policy": self._policy}
        return web.Response(text=self._page, content_type="text/html", charset="utf-8", headers=headers)

    async def _json(self, _: web.Request) -> web.Response:
        now = time.monotonic()
        if now - self._gathered_at >= FRESH_S:
            self._facts, self._gathered_at = msgspec.json.encode(self._report()), now
        return web.Response(body=self._facts, content_type="application/json", headers=_HEADERS)


_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def content_policy(page: str) -> str:
    """A policy that allows the page's script and style by their digests, and requests to its own server."""
    allowed = {
        tag: " ".join(f"'sha256-{_digest(text)}'" for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S))
        for tag in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
