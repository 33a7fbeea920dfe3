"""Images in an S3-compatible bucket.

obstore signs the requests, and the same client as for HTTP sends them: the one inside obstore follows
redirects to any host and connects to any address.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from stream_cluster.config.image_roots import S3Root
from stream_cluster.snapshot.images.faults import ImageFault, NoImage
from stream_cluster.snapshot.images.web import WebClient

if TYPE_CHECKING:
    from obstore.store import S3Config

_VALID_FOR = timedelta(minutes=15)  # far more than one image may take


class BucketReader:
    """Reads objects of a bucket by their keys."""

    def __init__(self, root: S3Root, client: WebClient) -> None:
        """Raises OSError: the secret's file cannot be read; `BaseError`: the store cannot be set up."""
        self._client = client
        self._folder = [part for part in root.folder.split("/") if part]
        config: S3Config = {"region": root.region}
        if root.endpoint is not None:
            config["endpoint"] = root.endpoint
        if root.access_key_id is not None and root.secret_access_key_file is not None:
            secret = Path(root.secret_access_key_file).read_text(encoding="utf-8").strip()
            config["access_key_id"] = root.access_key_id
            config["secret_access_key"] = secret
        self._store = S3Store(root.bucket, config=config, client_options={"allow_http": True})

    async def read(self, parts: Sequence[str]) -> bytes:
        """The object below the root's folder. Raises NoImage."""
        key = "/".join([*self._folder, *parts])
        try:
            url = await obstore.sign_async(self._store, "GET", key, _VALID_FOR)
        except (BaseError, OSError, ValueError):  # no credentials, or a key that S3 cannot have
            raise NoImage(ImageFault.UNREACHABLE) from None
        return await self._client.get(url)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
