"""The browser, and reports to open in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browser import Watched, keep, launched
from tests.support.pages import as_of_average_linkage, content_of, sizes_of, write_page


# Not for the session: Playwright has a running event loop while it lives, and other tests have theirs.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium."""
    with launched() as browser:
        yield browser


class Tab(Watched):
    """A page that is open, and what went on in it."""

    def __init__(self, page: Page, name: str) -> None:
        super().__init__(page)
        self.page = page
        self.name = name

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
        keep(self.page, f"{self.name}-{what}", whole=whole)


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
    """Reports by name, made when they are first asked for: a number of clusters, `pictures`, `average` or
    `hostile`."""
    folder = tmp_path_factory.mktemp("reports")

    def report(name: str) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            if name == "hostile":
                content = content_of([5, 3, 1], pictures=True, hostile=True)
            elif name == "average":
                content = as_of_average_linkage(content_of(sizes_of(200), pictures=True))
            elif name == "pictures":
                content = content_of(sizes_of(200), pictures=True)
            else:
                content = content_of([7] if name == "1" else sizes_of(int(name)), pictures=name == "1")
            write_page(path, content)
        return path

    return report
