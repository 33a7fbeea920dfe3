"""A real S3 server of one's own: moto's, over HTTP, with as many faults as a test wants."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from stream_cluster.config.settings import BackupS3Settings, S3Settings
from tests.support.http import Gateway

KEY, SECRET, BUCKET = "test-key", "test-secret", "results"


class S3Server:
    """moto behind a gateway that can hold requests or answer them with 503."""

    def __init__(self, moto_port: int, gateway: Gateway) -> None:
        self.gateway = gateway
        self.endpoint = f"http://127.0.0.1:{gateway.port}"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{moto_port}",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def settings(self, **changes: Any) -> S3Settings:
        """Settings of the bucket."""
        return S3Settings(**{**self.fields(), **changes})

    def backup_settings(self, **changes: Any) -> BackupS3Settings:
        """Settings of the bucket, for backups."""
        return BackupS3Settings(**{**self.fields(), "prefix": "backups", **changes})

    def backup_overrides(self, **changes: Any) -> dict[str, Any]:
        """As `overrides`, for backups."""
        fields = {**self.fields(), "prefix": "backups", **changes}
        return {f"backup__s3__{name}": value for name, value in fields.items()}

    def fields(self) -> dict[str, Any]:
        """What the settings need, by name."""
        return {
            "bucket": BUCKET,
            "prefix": "faces/archives",
            "endpoint": self.endpoint,
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "timeout_s": 10.0,
            "retry_s": 1.0,
        }

    def overrides(self, **changes: Any) -> dict[str, Any]:
        """Settings of a service, by keys with two underscores for the dots."""
        return {f"results__s3__{name}": value for name, value in {**self.fields(), **changes}.items()}

    def object_names(self) -> list[str]:
        """Names of all objects."""
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def unfinished_uploads(self) -> list[str]:
        """Names of multipart uploads that were neither completed nor aborted."""
        return [
            found["Key"] for found in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        ]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with an empty bucket."""
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    gateway = Gateway(port)
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    try:
        # moto keeps its state in the process, whatever server asks.
        _reset(port)
        yield S3Server(port, gateway)
    finally:
        gateway.open()
        gateway.shutdown()
        gateway.server_close()
        moto.stop()


def _reset(port: int) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(request).close()
