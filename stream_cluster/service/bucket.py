"""A bucket of S3, or of a store that speaks its protocol, through obstore: what all who use one need."""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePosixPath

import obstore
from obstore.store import S3Store as Bucket

from stream_cluster.config.settings import S3Settings

CHECK_RETRY_S = 3.0
"""How long a first look at a bucket is tried again."""
_PROBE = ".stream-cluster-write-test"


def connect(settings: S3Settings, retry_s: float) -> Bucket:
    """A client of the bucket that the settings name; a request that fails is repeated for `retry_s`."""
    assert settings.bucket is not None
    given = {
        "endpoint": settings.endpoint,
        "access_key_id": settings.access_key_id,
        "secret_access_key": settings.secret_access_key,
    }
    return Bucket(
        settings.bucket,
        prefix=settings.prefix.strip("/") or None,
        region=settings.region,
        # A TypedDict, whose keys mypy cannot see in a comprehension.
        config={name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        client_options={
            "allow_http": (settings.endpoint or "").startswith("http://"),
            "timeout": timedelta(seconds=settings.timeout_s),
            "connect_timeout": timedelta(seconds=min(5.0, settings.timeout_s)),
        },
        retry_config={
            # The time is the limit, not the number.
            "max_retries": 1000 if retry_s else 0,
            "retry_timeout": timedelta(seconds=retry_s),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        },
    )


def probe(settings: S3Settings) -> None:
    """Write a small object and remove it.

    Whoever waits for that does not wait for all the retries that other requests have.

    Raises:
        BaseError, OSError: of obstore, when the bucket cannot be written.
    """
    bucket = connect(settings, min(settings.retry_s, CHECK_RETRY_S))
    obstore.put(bucket, _PROBE, b"", use_multipart=False)
    obstore.delete(bucket, _PROBE)


def object_url(settings: S3Settings, name: PurePosixPath) -> str:
    """`s3://bucket/key`."""
    prefix = settings.prefix.strip("/")
    return f"s3://{settings.bucket}/{f'{prefix}/' if prefix else ''}{name}"


def short(error: Exception) -> str:
    """The first line of what the store says; the rest is for its developers."""
    return (str(error).splitlines() or [type(error).__name__])[0][:500]
