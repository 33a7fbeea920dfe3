"""Images over HTTP, from real servers that behave and misbehave."""

from __future__ import annotations

import gzip
import socket
import time

import pytest

from stream_cluster.config import ImageSettings
from stream_cluster.config.image_roots import HttpRoot
from stream_cluster.snapshot.images.fetch import Fetcher, Image
from stream_cluster.snapshot.images.web import is_public
from tests.support.images import picture, serving

PICTURE = picture()


async def fetch(url, reference="a.jpg", *, allow_private=True, token_file=None, **limits):
    """The bytes of an image, or the reason why there is none."""
    root = HttpRoot(url=url, allow_private=allow_private, bearer_token_file=token_file)
    fetcher = Fetcher(ImageSettings(roots=(root,), **limits), "acme")
    try:
        result = await fetcher.fetch(reference)
    finally:
        await fetcher.close()
    return result.data if isinstance(result, Image) else result.value


async def test_an_image_is_read_below_the_address_with_its_path_encoded():
    with serving(lambda ask: ask.send(PICTURE)) as server:
        assert await fetch(f"{server.url}/photos/", "cam 7/é?#%20.jpg") == PICTURE
    assert server.paths == ["/photos/cam%207/%C3%A9%3F%23%2520.jpg"]


async def test_a_token_is_sent_with_each_request(tmp_path):
    (tmp_path / "token").write_text("s3cret\n")
    with serving(lambda ask: ask.send(PICTURE)) as server:
        assert await fetch(server.url, token_file=str(tmp_path / "token")) == PICTURE
        assert await fetch(server.url, token_file=str(tmp_path / "gone")) == "unreachable"
    assert [headers["Authorization"] for _, headers in server.requests] == ["Bearer s3cret"]


@pytest.mark.parametrize(
    ("status", "fault"),
    [(404, "missing"), (410, "missing"), (401, "unreachable"), (403, "unreachable"), (500, "unreachable")],
)
async def test_an_answer_that_is_no_success_has_its_reason(status, fault):
    with serving(lambda ask: ask.send(PICTURE, status)) as server:
        assert await fetch(server.url) == fault


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused_and_where_it_leads_is_never_asked(status):
    with (
        serving(lambda ask: ask.send(PICTURE)) as other,
        serving(lambda ask: ask.send(b"", status, Location=f"{other.url}/a.jpg")) as server,
    ):
        assert await fetch(server.url) == "refused"
    assert other.requests == []


async def test_a_loopback_address_is_refused_before_anything_is_sent():
    with serving(lambda ask: ask.send(PICTURE)) as server:
        assert await fetch(server.url, allow_private=False) == "refused"
        by_name = server.url.replace("127.0.0.1", "localhost")
        assert await fetch(by_name, allow_private=False) == "refused"
    assert server.requests == []


async def test_a_public_name_that_leads_to_a_private_address_is_refused(monkeypatch):
    """The address that is connected to counts, so an answer of DNS that changes does not help."""
    look_up = socket.getaddrinfo

    def rebound(host, *arguments, **options):
        return look_up("127.0.0.1" if host == "images.example.org" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with serving(lambda ask: ask.send(PICTURE)) as server:
        url = f"http://images.example.org:{server.server_port}"
        assert await fetch(url, allow_private=False) == "refused"
        assert await fetch(url, allow_private=True) == PICTURE
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:1::1",
        "ff02::1",
    ],
)
def test_private_addresses_in_every_dress_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "172.32.0.1"]
)
def test_public_addresses_are_public(address):
    assert is_public(address)


async def test_nobody_there_is_unreachable():
    with serving(lambda ask: ask.send(PICTURE)) as server:
        url = server.url
    assert await fetch(url) == "unreachable"


async def test_a_certificate_that_is_not_trusted_or_no_tls_is_unreachable():
    with serving(lambda ask: ask.send(PICTURE)) as server:
        assert await fetch(server.url.replace("http:", "https:")) == "unreachable"


async def test_a_size_that_is_too_large_is_believed_before_the_body_is_read():
    with serving(lambda ask: ask.send(b"x", Content_Length=str(10**12))) as server:
        assert await fetch(server.url) == "too_large"


def endless(ask):
    ask.send_response(200)
    ask.send_header("Transfer-Encoding", "chunked")
    ask.end_headers()
    while not ask.server.ending.is_set():
        ask.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


async def test_a_body_without_end_is_cut_off_at_the_limit():
    with serving(endless) as server:
        assert await fetch(server.url, image_max_bytes=1 << 20) == "too_large"


async def test_an_image_of_exactly_the_limit_is_saved():
    with serving(lambda ask: ask.send(PICTURE)) as server:
        assert await fetch(server.url, image_max_bytes=len(PICTURE)) == PICTURE
        assert await fetch(server.url, image_max_bytes=len(PICTURE) - 1) == "too_large"


def lying_long(ask):
    ask.send(PICTURE, Content_Length=str(len(PICTURE) + 50))
    ask.close_connection = True


async def test_a_length_that_is_a_lie_never_makes_an_image_of_a_part():
    with serving(lying_long) as server:
        assert await fetch(server.url) == "truncated"
    with serving(lambda ask: ask.send(PICTURE, Content_Length=str(len(PICTURE) - 9))) as server:
        # Too many bytes are a part of an image, or no HTTP when they come in one piece.
        assert await fetch(server.url) in {"truncated", "unreachable"}


async def test_a_server_that_dribbles_ends_at_the_seconds_of_an_image():
    began = time.monotonic()
    with serving(lambda ask: ask.dribble(PICTURE, 0.05)) as server:
        assert await fetch(server.url, image_timeout_s=0.3) == "timeout"
    assert time.monotonic() - began < 2


async def test_a_server_that_says_nothing_ends_at_the_seconds_of_an_image():
    with serving(lambda ask: ask.hang()) as server:
        assert await fetch(server.url, image_timeout_s=0.2) == "timeout"


async def test_a_packed_body_is_not_unpacked():
    bomb = gzip.compress(bytes(50 << 20))
    with serving(lambda ask: ask.send(bomb, Content_Encoding="gzip")) as server:
        assert await fetch(server.url) == "wrong_type"


def nonsense(ask):
    ask.wfile.write(b"HTTP/9.9 what\r\n\r\n\x00\xff")
    ask.close_connection = True


def long_header(ask):
    ask.send(PICTURE, X_Long="x" * 200_000)


@pytest.mark.parametrize("answer", [nonsense, long_header])
async def test_an_answer_that_is_not_http_is_unreachable(answer):
    with serving(answer) as server:
        assert await fetch(server.url) == "unreachable"


@pytest.mark.parametrize("reference", ["../a.jpg", "%2e%2e/a.jpg", "//other/a.jpg", "http://other/a.jpg"])
async def test_a_reference_that_leads_elsewhere_is_never_sent(reference):
    with serving(lambda ask: ask.send(PICTURE)) as server:
        assert await fetch(f"{server.url}/photos", reference) == "refused"
    assert server.requests == []


async def test_cookies_are_not_kept():
    with serving(lambda ask: ask.send(PICTURE, Set_Cookie="a=b; Path=/")) as server:
        fetcher = Fetcher(ImageSettings(roots=(HttpRoot(url=server.url, allow_private=True),)), "acme")
        await fetcher.fetch("a.jpg")
        await fetcher.fetch("b.jpg")
        await fetcher.close()
    assert [headers.get("Cookie") for _, headers in server.requests] == [None, None]
