"""The browser, and reports to open in it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.pages import content_of, sizes_of, write_page

SCREENSHOTS = Path(__file__).parents[2] / "build" / "browser"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A machine that does other things too is slow, but not for ever.
PATIENCE_MS = 60_000


# Not for the session: Playwright has a running event loop while it lives, and other tests have theirs.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, with a profile of its own that is thrown away."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        reason = "no Chromium on this machine: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(f"CI is set, so a browser is required; {reason}", pytrace=False)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page that is open, and what went on in it."""

    page: Page
    name: str
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Console errors, exceptions and failed requests."""

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on(
            "console",
            lambda message: message.type in {"error", "warning"} and self.problems.append(message.text),
        )

    def open(self, path: Path, fragment: str = "") -> Tab:
        """Load a report, until its cards are there."""
        self.page.goto(f"{path.as_uri()}{fragment}")
        self.page.wait_for_selector("html[data-ready]")
        return self

    def numbers(self) -> list[int]:
        """Numbers of the clusters whose cards are shown, in order."""
        texts = self.page.locator(".card .number").all_inner_texts()
        return [int(text.removeprefix("#")) for text in texts]

    def found(self) -> str:
        """What is said of how many clusters there are."""
        return self.page.inner_text("#found")

    def until_found(self, text: str) -> None:
        """Wait until that is said."""
        self.page.wait_for_function("text => document.getElementById('found').textContent === text", arg=text)

    def keep(self, what: str, *, whole: bool = False) -> None:
        """Keep a picture of what is seen now."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.name}-{what}.png", full_page=whole)


@pytest.fixture
def new_tab(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Tab]]:
    """Opens tabs: `new_tab(color_scheme="dark")`. Each has a context of its own."""
    contexts: list[BrowserContext] = []
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:60].strip("-")

    def open_tab(**options: object) -> Tab:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = chromium.new_context(**options)
        contexts.append(context)
        return Tab(context.new_page(), name)

    yield open_tab
    for context in contexts:
        context.close()


@pytest.fixture
def tab(new_tab: Callable[..., Tab]) -> Tab:
    """One tab."""
    return new_tab()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Reports by name, made when they are first asked for: a number of clusters, `pictures` or `hostile`."""
    folder = tmp_path_factory.mktemp("reports")

    def report(name: str) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            if name == "hostile":
                content = content_of([5, 3, 1], pictures=True, hostile=True)
            elif name == "pictures":
                content = content_of(sizes_of(200), pictures=True)
            else:
                content = content_of([7] if name == "1" else sizes_of(int(name)), pictures=name == "1")
            write_page(path, content)
        return path

    return report
