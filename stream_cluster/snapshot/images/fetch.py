"""One image from its reference to its bytes and type, within the limits of a single image."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from obstore.exceptions import BaseError

from stream_cluster.config import ImageSettings
from stream_cluster.config.image_roots import DirectoryRoot, HttpRoot, ImageRoot
from stream_cluster.snapshot.images.bucket import BucketReader
from stream_cluster.snapshot.images.detect import extension_of
from stream_cluster.snapshot.images.directory import DirectoryReader
from stream_cluster.snapshot.images.faults import ImageFault, NoImage
from stream_cluster.snapshot.images.references import choose_root, parts_of
from stream_cluster.snapshot.images.web import HttpReader, WebClient


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is whole, as far as its structure shows."""

    extension: str
    """`jpg`, `png` or `webp`."""
    data: bytes


class Reader(Protocol):
    """Reads images below one root."""

    async def read(self, parts: Sequence[str]) -> bytes:
        """The bytes at a path of plain names, no more than an image may have. Raises NoImage."""
        ...

    async def close(self) -> None:
        """Give up connections."""
        ...


class Fetcher:
    """Fetches images from the configured roots. Use from one event loop; close it there."""

    def __init__(self, settings: ImageSettings, account_id: str) -> None:
        """`account_id`: the account whose images they are."""
        self._settings = settings
        self._account_id = account_id
        self._readers: dict[str, Reader | None] = {}

    async def fetch(self, reference: str) -> Image | ImageFault:
        """The image, or why there is none."""
        try:
            async with asyncio.timeout(self._settings.image_timeout_s):
                # First the whole, so that no prefix hides what the rest would mean alone.
                parts_of(reference)
                root, rest = choose_root(self._settings.roots, reference)
                parts = parts_of(f"{self._account_id}/{rest}" if root.per_account else rest)
                reader = self._reader(root)
                if reader is None:
                    return ImageFault.UNREACHABLE
                data = await reader.read(parts)
            return Image(extension_of(data), data)
        except TimeoutError:
            return ImageFault.TIMEOUT
        except NoImage as error:
            return error.fault

    async def close(self) -> None:
        """Close all connections."""
        for reader in self._readers.values():
            if reader is not None:
                await reader.close()

    def _reader(self, root: ImageRoot) -> Reader | None:
        """The reader of a root, made when it is first needed; None when it cannot be made."""
        if root.prefix not in self._readers:
            self._readers[root.prefix] = self._open(root)
        return self._readers[root.prefix]

    def _open(self, root: ImageRoot) -> Reader | None:
        if isinstance(root, DirectoryRoot):
            return DirectoryReader(root.path, self._settings.image_max_bytes)
        client = WebClient(
            allow_private=root.allow_private,
            connections=self._settings.concurrency,
            max_bytes=self._settings.image_max_bytes,
        )
        try:
            return HttpReader(root, client) if isinstance(root, HttpRoot) else BucketReader(root, client)
        except (OSError, ValueError, BaseError):  # no secret to be read, or one that is none
            return None
