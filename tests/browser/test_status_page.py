"""The status page in a real browser: what it is told it shows, as text, and notices when nobody answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from stream_cluster.service.status_page import StatusPage
from tests.support.browser import PATIENCE_MS, Watched, keep
from tests.support.status_facts import facts

HOSTILE = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>\u202egnp.exe" + "x" * 90


class Server:
    """Serves the page with facts that a test may change, in a thread of its own."""

    def __init__(self) -> None:
        self.facts = facts()
        self.down = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = self._do(self._start())

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> str:
        application = web.Application(middlewares=[self._middleware])
        StatusPage(lambda: self.facts).add_to(application)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        return web.Response(status=503) if self.down else await handler(request)

    def stop(self) -> None:
        self._do(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    yield context.new_page()
    context.close()


def shown(page: Page, server: Server) -> Watched:
    watched = Watched(page)
    page.goto(f"{server.url}/status")
    page.wait_for_selector("html[data-shown]")
    return watched


def rows(page: Page, table: str) -> list[list[str]]:
    lines = page.locator(f"#{table} tbody tr").all()
    return [[cell.strip() for cell in line.locator("td").all_inner_texts()] for line in lines]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_the_facts_asks_nobody_else_and_has_no_barrier(server, page, scheme):
    page.emulate_media(color_scheme=scheme)
    watched = shown(page, server)
    assert page.inner_text("#state") == "ready"
    assert page.inner_text("#rate") == "1,204"
    assert page.inner_text("#objects") == "1,310,220"
    assert page.inner_text("#lag") == "40,012"
    assert rows(page, "active")[0] == ["acme", "april-gate-4", "match", "44%", "1 min 21 s", "0"]
    assert [row[3] for row in rows(page, "ended")] == ["done", "done", "failed", "done"]
    assert [row[8] for row in rows(page, "ended")] == [
        "/var/lib/results/acme/march report.zip",
        "s3://archives/acme/february.zip",
        "empty_selection",
        "expired",
    ]
    assert page.locator("#ended a").first.get_attribute("href").endswith("march%20report.zip")
    assert [row[1] for row in rows(page, "partitions")] == ["open", "paused", "loading"]
    assert rows(page, "spaces")[0][4:7] == ["hnsw", "831 MB", "99.93% of 20,412"]
    assert page.inner_text("#spaces-note") == "The largest 2 of 3."
    assert (
        page.locator("#active progress").first.get_attribute("aria-label") == "Progress of task april-gate-4"
    )
    keep(page, f"status-{scheme}", whole=True)
    assert {url.partition("?")[0] for url in watched.requests} == {
        f"{server.url}/status",
        f"{server.url}/status.json",
    }
    assert watched.problems == []
    found = [
        one for one in Axe().run(page).response["violations"] if one["impact"] in {"serious", "critical"}
    ]
    assert not found, [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


def test_the_page_updates_itself_and_keeps_the_rows_that_stay(server, page):
    shown(page, server)
    page.evaluate("window.kept = document.querySelector('#active tbody tr')")
    changed = facts(ready=False, problems=["partition 2: loading"])
    changed["tasks"]["active"][0]["progress"] = 0.9
    server.facts = changed
    expect(page.locator("#active tbody tr td:nth-child(4)").first).to_have_text("90%", timeout=PATIENCE_MS)
    assert page.evaluate("window.kept === document.querySelector('#active tbody tr')")
    assert page.inner_text("#state") == "not ready"
    assert page.inner_text("#problems") == "partition 2: loading"
    changed = facts()
    changed["tasks"] |= {"running": 0, "waiting": 0, "active": []}
    server.facts = changed
    expect(page.locator("#active")).to_have_text("No task is under way.", timeout=PATIENCE_MS)


def test_a_service_that_does_not_answer_is_noticed_and_so_is_its_return(server, page):
    shown(page, server)
    server.down = True
    expect(page.locator("#state")).to_have_text("no answer", timeout=PATIENCE_MS)
    assert "has not answered since" in page.inner_text("#lost")
    assert rows(page, "active")
    keep(page, "status-no-answer", whole=True)
    server.down = False
    expect(page.locator("#state")).to_have_text("ready", timeout=PATIENCE_MS)
    assert page.locator("#lost").is_hidden()


def test_hostile_text_in_every_field_is_text(server, page):
    def hostile(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: hostile(item) if name != "time" else item for name, item in value.items()}
        if isinstance(value, list):
            return [hostile(item) for item in value]
        return HOSTILE if isinstance(value, str) else value

    server.facts = hostile(facts(ready=False, problems=["x"]))
    watched = shown(page, server)
    assert rows(page, "active")[0][:3] == [HOSTILE] * 3
    assert page.evaluate("window.hit") is None
    assert page.locator("img, main script, iframe").count() == 0
    assert watched.problems == []
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0
    keep(page, "status-hostile", whole=True)


def test_the_page_fits_a_narrow_window_and_says_what_there_is_not(server, page):
    page.set_viewport_size({"width": 380, "height": 800})
    server.facts = facts(
        partitions=[],
        spaces=[],
        spaces_total={"spaces": 0, "objects": 0},
        tasks={"running": 0, "waiting": 0, "active": [], "ended": []},
        rate={"records": 0, "records_per_s": 0.0, "by_second": []},
    )
    watched = shown(page, server)
    assert page.inner_text("#partitions") == "No partition is assigned to this worker."
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert watched.problems == []
    keep(page, "status-empty", whole=True)
