"""The report of real faces, past the chaining cliff and before it, where this machine has their data.

By hand, with the data's folder as DATA:

    unzip -q $DATA/images.zip -d photos
    stream-cluster cluster $DATA/events.jsonl.gz --threshold 0.44 --save-images --image-root photos --output faces.zip
"""  # noqa: E501 - a command

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest

from tests.support.faces import require_faces, unpack_images
from tests.support.service import COMMAND


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archives by threshold and linkage, unpacked."""
    data = require_faces()
    folder = tmp_path_factory.mktemp("faces")
    photos = folder / "photos"
    photos.mkdir()
    unpack_images(data, photos)
    if not any(photos.iterdir()):
        pytest.skip("no images of the real faces: there is no images.zip beside events.jsonl.gz")

    def archive(threshold, linkage="components"):
        target = folder / f"{linkage}-{threshold}"
        if not target.exists():
            options = ["--threshold", threshold, "--linkage", linkage, "--save-images"]
            options += ["--image-root", str(photos)]
            command = [sys.executable, "-c", COMMAND, "cluster", str(data / "events.jsonl.gz"), *options]
            # In a process of its own: Playwright's event loop runs in this one.
            subprocess.run([*command, "--output", f"{target}.zip"], check=True, capture_output=True)
            with zipfile.ZipFile(f"{target}.zip") as zipped:
                zipped.extractall(target)
        return target

    return archive


def test_past_the_cliff_the_warnings_name_clusters_and_the_ends_of_their_bridges(archives, tab):
    folder = archives("0.44")
    warnings = json.loads((folder / "manifest.json").read_text())["warnings"]
    assert warnings[0]["cluster"] == 0
    assert warnings[0]["bridges"] >= 1
    tab.open(folder / "report.html")
    assert tab.page.locator(".warning").count() == len(warnings)
    shown = tab.page.locator(".warning").first.inner_text()
    assert "Cluster 0 holds" in shown
    assert all(object_id in shown for object_id in warnings[0]["objects"][:8])
    tab.keep("page")
    tab.page.click(".warning [data-open='0']")
    assert tab.page.locator(".pair img").count() == 2
    assert "The cluster hangs together by" in tab.page.inner_text(".pair")
    tab.keep("cluster")
    assert tab.problems == []


def test_above_the_cliff_nothing_is_warned_of(archives, tab):
    folder = archives("0.60")
    manifest = json.loads((folder / "manifest.json").read_text())
    tab.open(folder / "report.html")
    assert manifest["warnings"] == []
    assert tab.page.locator(".warning").count() == 0
    assert tab.found() == f"{manifest['counts']['clusters']:,} clusters"
    assert manifest["counts"]["page"]["thumbnails"] == manifest["counts"]["images"]["saved"]
    tab.page.wait_for_function("() => [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    tab.keep("page")
    assert tab.problems == []


def test_average_linkage_shows_the_people_that_components_would_have_merged(archives, tab):
    folder = archives("0.40", "average")
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    components = counts["components"]
    assert components["largest_cluster"] > 5 * counts["largest_cluster"]
    tab.open(folder / "report.html")
    said = tab.page.inner_text(".intro")
    assert (
        f"merged these {counts['clusters']:,} clusters into {components['clusters']:,}, the largest of"
        in said
    )
    tab.keep("page")
    sizes = "columns.component.map(c => columns.componentObjects[c] ?? 0)"
    largest = tab.page.evaluate(f"(sizes => sizes.indexOf(Math.max(...sizes)))({sizes})")
    tab.page.evaluate(f"location.hash = '#cluster-{largest}'")
    tab.page.wait_for_selector(".one-component")
    assert f"one component of {components['largest_cluster']:,} objects" in tab.page.inner_text(
        ".one-component"
    )
    tab.keep("cluster")
    tab.page.click(".one-component .heading button")
    tab.page.wait_for_function("() => document.getElementById('found').textContent.includes(' of ')")
    shown = tab.page.evaluate("view.order.length")
    assert shown == tab.page.evaluate(f"columns.componentClusters[columns.component[{largest}]]")
    tab.keep("component")
    assert tab.problems == []
