"""Images over HTTP(S): no redirects, no private addresses, never more bytes than allowed."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from stream_cluster.config.image_roots import HttpRoot
from stream_cluster.snapshot.images.faults import ImageFault, NoImage

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PrivateAddress(OSError):
    """A host name leads to an address that is not public."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; an IPv4 address inside IPv6 counts as itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.sixtofour is not None or ip.teredo is not None:
            return False  # relays of old: they lead to any IPv4 address, and nobody needs them
        if ip in _NAT64:
            ip = ipaddress.IPv4Address(ip.packed[-4:])
        elif ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    """The socket for an address that is about to be connected to.

    It sees the very address, after every look-up, so a name that changes its address between a check and
    its use gains nothing.
    """
    family, kind, protocol, _, target = address
    if not is_public(target[0]):
        raise PrivateAddress(errno.EPERM, "not a public address")
    return socket.socket(family, kind, protocol)


class WebClient:
    """Fetches URLs whose host is configured. Use from one event loop; close it there."""

    def __init__(self, *, allow_private: bool, connections: int, max_bytes: int) -> None:
        """`connections`: most at one time."""
        self._max_bytes = max_bytes
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections,
                resolver=aiohttp.ThreadedResolver(),
                socket_factory=None if allow_private else _public_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The caller's limit holds for the whole of an image.
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            # What is packed would be as large as it likes once unpacked.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )

    async def get(self, url: str, headers: Mapping[str, str] = _NO_HEADERS) -> bytes:
        """The body of a successful answer. `url` is sent as it is.

        Raises NoImage: `refused` for a redirect or a private address, `missing`, `too_large`, `truncated`
        when the connection ends before the body does, `unreachable` for anything else.
        """
        try:
            target = URL(url, encoded=True)
            async with self._session.get(target, headers=headers, allow_redirects=False) as response:
                _check_status(response.status)
                # None when the server does not say; what it says need not be true.
                if (response.content_length or 0) > self._max_bytes:
                    raise NoImage(ImageFault.TOO_LARGE)
                return await self._body(response)
        except aiohttp.ClientPayloadError:
            raise NoImage(ImageFault.TRUNCATED) from None
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, PrivateAddress)
            raise NoImage(ImageFault.REFUSED if refused else ImageFault.UNREACHABLE) from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise NoImage(ImageFault.UNREACHABLE) from None

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > self._max_bytes:
                raise NoImage(ImageFault.TOO_LARGE)
        return bytes(body)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


def _check_status(status: int) -> None:
    """Raises NoImage unless the answer is the image."""
    if status == 200:
        return
    if 300 <= status < 400:
        raise NoImage(ImageFault.REFUSED)
    raise NoImage(ImageFault.MISSING if status in {404, 410} else ImageFault.UNREACHABLE)


class HttpReader:
    """Reads paths below an http(s) address."""

    def __init__(self, root: HttpRoot, client: WebClient) -> None:
        """Raises OSError when the token's file cannot be read."""
        self._client = client
        self._base = root.url.rstrip("/")
        self._headers = {}
        if root.bearer_token_file is not None:
            token = Path(root.bearer_token_file).read_text(encoding="utf-8").strip()
            self._headers["Authorization"] = f"Bearer {token}"

    async def read(self, parts: Sequence[str]) -> bytes:
        """The image at a path. Raises NoImage."""
        path = "/".join(quote(part, safe="") for part in parts)
        return await self._client.get(f"{self._base}/{path}", self._headers)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
