"""The command line in tests: in this process, or as a process of its own."""

from __future__ import annotations

import sys

from typer.testing import CliRunner

from stream_cluster.cli import app

COMMAND = [sys.executable, "-c", "from stream_cluster.cli import main; main()"]
"""`stream-cluster` as a command for subprocess, whether or not its script is installed."""


def invoke(*arguments, **more):
    """Run a command in this process; the result has `exit_code`, `stdout`, `stderr`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **more)
