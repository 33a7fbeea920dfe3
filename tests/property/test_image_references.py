"""No reference whatever reads anything outside of its root, and no id leaves the folder of its images."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stream_cluster.config import ImageSettings
from stream_cluster.config.image_roots import DirectoryRoot, HttpRoot
from stream_cluster.snapshot.images.directory import read_below
from stream_cluster.snapshot.images.faults import ImageFault, NoImage
from stream_cluster.snapshot.images.fetch import Fetcher, Image
from stream_cluster.snapshot.images.save import Wanted, entry_name
from tests.support.images import picture, serving

CANARY = picture(colour=7)
INSIDE = picture(colour=1)

# Names that exist, ways up and out, and ways to write them so that somebody else decodes them.
PIECES = st.sampled_from(
    [
        *("..", ".", "...", "", "/", "\\", "~", "\0", "a", "cam7", "canary.jpg", "inside.jpg", "outside"),
        *("root", "link", "out", "up", "deep", "%2e", "%2E%2e", "%2f", "%5c", "%00", "%252e", "%c0%ae"),
        *("\uff0e", "\u2025", "\uff0f", "\u2215", "file:", "http:", "//", " ", ";", "?", "#", "\u202e"),
        *("C:", "$HOME"),
    ]
)
ENCODED = st.builds(quote, PIECES, st.just(""))
REFERENCES = st.one_of(
    st.lists(st.one_of(PIECES, ENCODED), max_size=7).map("/".join),
    st.lists(st.one_of(PIECES, ENCODED), max_size=7).map("".join),
    st.text(max_size=40),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with an image inside, canaries around it, and links that lead to them."""
    outside = tmp_path_factory.mktemp("outside")
    root = outside / "root"
    (root / "cam7" / "deep").mkdir(parents=True)
    for folder in (outside, outside / "outside"):
        folder.mkdir(exist_ok=True)
        (folder / "canary.jpg").write_bytes(CANARY)
        (folder / "inside.jpg").write_bytes(CANARY)
    (root / "inside.jpg").write_bytes(INSIDE)
    (root / "cam7" / "inside.jpg").write_bytes(INSIDE)
    (root / "link").symlink_to(outside / "canary.jpg")
    (root / "out").symlink_to(outside / "outside")
    (root / "cam7" / "up").symlink_to("../..")
    (root / "cam7" / "canary.jpg").symlink_to("../../canary.jpg")
    return root


def fetched(settings: ImageSettings, reference: str) -> Image | ImageFault:
    async def fetch() -> Image | ImageFault:
        fetcher = Fetcher(settings, "acme")
        try:
            return await fetcher.fetch(reference)
        finally:
            await fetcher.close()

    return asyncio.run(fetch())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reference=REFERENCES)
@example(reference="inside.jpg")
@example(reference="../canary.jpg")
@example(reference="link")
@example(reference="out/canary.jpg")
@example(reference="cam7/up/canary.jpg")
@example(reference="cam7/canary.jpg")
@example(reference="%2e%2e/canary.jpg")
def test_no_reference_brings_out_what_lies_outside_of_its_root(root: Path, reference: str) -> None:
    roots = (DirectoryRoot(path=str(root)), DirectoryRoot(prefix="cam7/", path=str(root / "cam7")))
    result = fetched(ImageSettings(roots=roots), reference)
    assert isinstance(result, ImageFault) or result.data == INSIDE
    assert not isinstance(result, ImageFault) or result in {ImageFault.REFUSED, ImageFault.MISSING}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.one_of(PIECES, st.text(max_size=10)), min_size=1, max_size=6))
@example(parts=["..", "canary.jpg"])
@example(parts=["cam7", "up", "canary.jpg"])
def test_reading_below_a_root_is_safe_even_when_nothing_was_checked_before(
    root: Path, parts: list[str]
) -> None:
    try:
        read = read_below(str(root), parts, 1 << 20)
    except NoImage:
        return
    assert read == INSIDE


@settings(max_examples=60, deadline=None)
@given(references=st.lists(REFERENCES, min_size=1, max_size=10))
def test_a_server_is_asked_for_nothing_but_paths_below_its_address(references: list[str]) -> None:
    with serving(lambda ask: ask.send(INSIDE)) as server:
        settings = ImageSettings(roots=(HttpRoot(url=f"{server.url}/photos/", allow_private=True),))
        for reference in references:
            assert not isinstance(fetched(settings, reference), Image) or server.paths
    for path in server.paths:
        assert path.startswith("/photos/")
        components = path.removeprefix("/photos/").split("/")
        assert not {"", ".", ".."}.intersection(components)
        assert "?" not in path
        assert "%2F" not in path.upper()


@settings(max_examples=300, deadline=None)
@given(object_id=st.one_of(REFERENCES, st.text(min_size=1, max_size=128)), cluster=st.integers(0, 10**9))
def test_entries_stay_in_the_folder_of_their_cluster(object_id: str, cluster: int) -> None:
    try:
        name = entry_name(Wanted(cluster, object_id, None), "jpg")
    except UnicodeEncodeError:  # no message has such an id
        assert not object_id.isprintable()
        return
    path = PurePosixPath(name)
    assert len(path.parts) == 3
    assert path.parts[:2] == ("images", str(cluster))
    assert not {".", ".."}.intersection(path.parts)
    assert zipfile.ZipInfo(name).filename == name
    assert "\\" not in name
