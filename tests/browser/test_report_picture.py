"""The report of made-up people as the documentation shows it: `make report-picture` draws docs/report.png."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.support.service import COMMAND

PICTURE = os.environ.get("STREAM_CLUSTER_REPORT_PICTURE")
"""Where the target wants the picture."""
_MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """An unpacked archive of generated events, by average linkage, with images."""
    folder = tmp_path_factory.mktemp("made-up")
    for arguments in (
        ["generate", "--events", "900", "--identity-dim", "30", "--seed", "4",
         "--output", "events.jsonl.gz", "--images", "photos"],
        ["cluster", "events.jsonl.gz", "--threshold", "0.46", "--linkage", "average", "--save-images",
         "--image-root", "photos", "--output", "faces.zip"],
    ):  # fmt: skip
        # In a process of its own: Playwright's event loop runs in this one.
        subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments], check=True, capture_output=True, cwd=folder
        )
    with zipfile.ZipFile(folder / "faces.zip") as archive:
        archive.extractall(folder / "faces")
    return folder / "faces"


def test_the_picture_shows_what_is_read_first_and_cards_with_faces(unpacked, new_tab, tmp_path):
    tab = new_tab(viewport={"width": 1240, "height": 1480}, color_scheme="light")
    tab.open(unpacked / "report.html")
    tab.page.wait_for_function("() => [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.page.locator(".card .face img").count() > 8
    assert "would have merged these" in tab.page.inner_text(".intro")
    assert tab.page.locator(".card .component").count() > 0
    path = Path(PICTURE) if PICTURE else tmp_path / "report.png"
    with Image.open(io.BytesIO(tab.page.screenshot())) as seen:
        seen.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < _MOST_BYTES
    assert tab.problems == []
