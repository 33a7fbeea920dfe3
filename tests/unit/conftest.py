"""Fixtures of several files of this suite."""

from __future__ import annotations

import pytest

from tests.support.s3 import s3_server


@pytest.fixture(scope="module")
def server():
    """A real S3 server for the tests of one file."""
    with s3_server() as found:
        yield found
