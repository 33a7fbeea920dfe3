"""Images in an S3 bucket, from a real server of the protocol."""

from __future__ import annotations

import urllib.request

import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from stream_cluster.config import ImageSettings
from stream_cluster.config.image_roots import S3Root
from stream_cluster.snapshot.images.fetch import Fetcher, Image
from tests.support.images import picture, serving

PICTURE = picture("png")


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/photos", method="PUT")).close()
    store = S3Store(
        "photos",
        endpoint=url,
        region="us-east-1",
        access_key_id="key",
        secret_access_key="secret",
        client_options={"allow_http": True},
    )
    obstore.put(store, "a.png", PICTURE)
    obstore.put(store, "deep/cam 7/é%20+.png", PICTURE)
    obstore.put(store, "large.png", PICTURE + bytes(5000))
    obstore.put(store, "text.png", b"hello")
    yield url
    server.stop()


@pytest.fixture
def secret_file(tmp_path):
    (tmp_path / "secret").write_text("secret\n")
    return str(tmp_path / "secret")


async def fetch(endpoint, secret_file, reference, *, folder="", bucket="photos", **limits):
    root = S3Root(
        bucket=bucket,
        endpoint=endpoint,
        folder=folder,
        access_key_id="key",
        secret_access_key_file=secret_file,
        allow_private=limits.pop("allow_private", True),
    )
    fetcher = Fetcher(ImageSettings(roots=(root,), **limits), "acme")
    try:
        result = await fetcher.fetch(reference)
    finally:
        await fetcher.close()
    return result.data if isinstance(result, Image) else result.value


async def test_an_object_is_read_by_its_key(endpoint, secret_file):
    assert await fetch(endpoint, secret_file, "a.png") == PICTURE


async def test_a_key_with_any_characters_below_a_folder_is_read(endpoint, secret_file):
    assert await fetch(endpoint, secret_file, "cam 7/é%20+.png", folder="deep/") == PICTURE


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("none.png", "missing"),
        ("text.png", "wrong_type"),
        ("large.png", "too_large"),
        ("../a.png", "refused"),
        ("%2e%2e/a.png", "refused"),
    ],
)
async def test_what_cannot_be_saved_has_its_reason(endpoint, secret_file, reference, fault):
    assert await fetch(endpoint, secret_file, reference, image_max_bytes=1000) == fault


async def test_a_folder_is_not_left(endpoint, secret_file):
    assert await fetch(endpoint, secret_file, "a.png", folder="deep") == "missing"


async def test_a_bucket_that_does_not_exist_has_no_images(endpoint, secret_file):
    assert await fetch(endpoint, secret_file, "a.png", bucket="none") == "missing"


async def test_a_private_endpoint_is_refused_unless_configured(endpoint, secret_file):
    assert await fetch(endpoint, secret_file, "a.png", allow_private=False) == "refused"


async def test_a_secret_that_cannot_be_read_makes_the_root_unreachable(endpoint, tmp_path):
    assert await fetch(endpoint, str(tmp_path / "gone"), "a.png") == "unreachable"


async def test_the_request_is_signed_and_a_redirect_to_another_host_is_refused(secret_file):
    with (
        serving(lambda ask: ask.send(PICTURE)) as other,
        serving(lambda ask: ask.send(b"", 307, Location=f"{other.url}/a.png")) as server,
    ):
        assert await fetch(server.url, secret_file, "a.png") == "refused"
    assert other.requests == []
    (path,) = server.paths
    assert path.startswith("/photos/a.png?")
    assert "X-Amz-Signature=" in path
    assert "secret" not in path
