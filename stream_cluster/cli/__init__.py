"""The command line: one file per group of commands, `main` is the entry point.

Commands read options, call the layers below and show what they return; `failures` turns errors into
exit codes.
"""

from __future__ import annotations

from stream_cluster.cli.app import app, main

__all__ = ["app", "main"]
