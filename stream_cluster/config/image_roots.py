"""Where images come from: one table of `images.roots` for each place.

A secret is never written into such a table: it names the file that holds it. The file is read when a task
saves images, so a new secret needs no restart.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from stream_cluster.errors import ConfigError

Prefix = Annotated[
    str,
    Meta(
        description="References that begin with it belong to this root, and what follows it is looked up "
        "there; ends in a slash. Of several the longest counts; empty takes what no other root takes."
    ),
]
PerAccount = Annotated[
    bool,
    Meta(
        description="Look up references in a folder named by the account of the task, so that no account "
        "can name an image of another."
    ),
]
AllowPrivate = Annotated[bool, Meta(description="Connect to private, loopback and link-local addresses too.")]


class DirectoryRoot(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="directory"
):
    """Files below a directory."""

    prefix: Prefix = ""
    per_account: PerAccount = False
    path: Annotated[str, Meta(min_length=1, description="The directory.")]


class S3Root(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="s3"):
    """Objects of an S3-compatible bucket."""

    prefix: Prefix = ""
    per_account: PerAccount = False
    bucket: Annotated[str, Meta(min_length=1, description="Name of the bucket.")]
    folder: Annotated[str, Meta(description="Keys begin with it and a slash.")] = ""
    region: Annotated[str, Meta(min_length=1, description="Region of the bucket.")] = "us-east-1"
    endpoint: Annotated[
        str | None, Meta(description="http(s) address of the S3 server; AWS when absent.")
    ] = None
    access_key_id: Annotated[
        str | None,
        Meta(
            description="Name of the access key; when absent, the credentials are those of the environment "
            "(AWS_ACCESS_KEY_ID and others) or of the machine."
        ),
    ] = None
    secret_access_key_file: Annotated[
        str | None, Meta(description="File that holds the secret of the access key.")
    ] = None
    allow_private: AllowPrivate = False


class HttpRoot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="http"):
    """Paths below an http(s) address."""

    prefix: Prefix = ""
    per_account: PerAccount = False
    url: Annotated[str, Meta(min_length=1, description="The address, without query and credentials.")]
    bearer_token_file: Annotated[
        str | None, Meta(description="File that holds a token, sent as `Authorization: Bearer`.")
    ] = None
    allow_private: AllowPrivate = False


ImageRoot = DirectoryRoot | S3Root | HttpRoot


def secret_files(root: ImageRoot) -> dict[str, str]:
    """Field → path of each file that a root reads a secret from."""
    fields = ("secret_access_key_file", "bearer_token_file")
    named = {field: getattr(root, field, None) for field in fields}
    return {field: path for field, path in named.items() if path is not None}


def directory_roots(given: list[str]) -> list[dict[str, Any]]:
    """Tables of `images.roots` from `DIR` or `PREFIX/=DIR`, as the command line has them.

    Raises ConfigError when a prefix is given twice.
    """
    roots: dict[str, dict[str, Any]] = {}
    for text in given:
        prefix, equals, path = text.partition("=")
        # Only a relative name with a slash at its end is a prefix: `/data/a=b` is a directory.
        if not equals or not prefix.endswith("/") or prefix.startswith(("/", ".")):
            prefix, path = "", text
        if prefix in roots:
            raise ConfigError(f"--image-root: found two for the prefix {prefix!r}, expected one")
        roots[prefix] = msgspec.to_builtins(DirectoryRoot(prefix=prefix, path=path))
    return list(roots.values())
