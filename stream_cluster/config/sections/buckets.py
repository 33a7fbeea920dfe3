"""Stores that speak the protocol of S3."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from stream_cluster.config.sections.base import SECRET, Section


class S3Settings(Section, frozen=True, kw_only=True):
    """A bucket for the archives, of S3 or of a store that speaks its protocol."""

    bucket: Annotated[
        str | None, Meta(description="Bucket of the result archives, instead of results.directory.")
    ] = None
    prefix: Annotated[str, Meta(description="What the names of the archives begin with in the bucket.")] = ""
    endpoint: Annotated[
        str | None, Meta(description="http(s) address of the store; that of AWS when absent.")
    ] = None
    region: Annotated[str, Meta(min_length=1, description="Region of the bucket.")] = "us-east-1"
    access_key_id: Annotated[
        str | None,
        Meta(
            description="Access key; absent: AWS_ACCESS_KEY_ID and the other variables of AWS, or the role "
            "of the machine."
        ),
    ] = None
    secret_access_key: Annotated[
        str | None,
        Meta(description="Secret of the access key; prefer secret_access_key_file.", extra=SECRET),
    ] = None
    secret_access_key_file: Annotated[
        str | None, Meta(description="File whose content is secret_access_key.")
    ] = None
    timeout_s: Annotated[
        float, Meta(gt=0, le=3_600, description="Wait for the answer to one request to the store.")
    ] = 30.0
    retry_s: Annotated[
        float,
        Meta(
            ge=0, le=3_600, description="How long a request that fails is tried again before the task fails."
        ),
    ] = 60.0


class BackupS3Settings(S3Settings, frozen=True, kw_only=True):
    """A bucket for the backups, of S3 or of a store that speaks its protocol, with conditional writes."""

    bucket: Annotated[str | None, Meta(description="Bucket of the backups, instead of backup.directory.")] = (
        None
    )
    prefix: Annotated[str, Meta(description="What the names of the backups begin with in the bucket.")] = ""
    retry_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3_600,
            description="How long a request that fails is tried again before the backup fails.",
        ),
    ] = 60.0
