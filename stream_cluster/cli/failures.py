"""Errors to exit codes: one line for a person, never a traceback unless asked for.

| code | meaning |
|---|---|
| 0 | done |
| 1 | it failed: the task failed or was cancelled, or an error without a code of its own |
| 2 | a person has to change an option, a file, a setting or a topic |
| 3 | no answer in time: no broker, or `--timeout-s` passed |
| 4 | the state or the output cannot be used: damaged, locked, full, or of another release |
| 5 | Kafka no longer has records that the state needs; `run --accept-gap` goes on without them |
| 130, 143 | ended by Ctrl-C (SIGINT), by SIGTERM |
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from stream_cluster.errors import (
    BackupDamaged,
    BackupsUnavailable,
    BrokerUnavailable,
    Cancelled,
    ConfigError,
    LogGap,
    ResultsUnavailable,
    StateError,
    StreamClusterError,
    TaskError,
)

FAILED, USAGE, NO_ANSWER, BAD_STATE, GAP, INTERRUPTED = 1, 2, 3, 4, 5, 130
DEBUG_VARIABLE = "STREAM_CLUSTER_DEBUG"

EXIT_CODES_HELP = (
    "[bold]Exit codes:[/bold] 0 done · 1 failed · 2 an option, file or setting must be changed · "
    "3 no answer in time · 4 the state cannot be used · 5 a gap in the log · 130 interrupted"
)

# A task's own mistakes are those of the options that it was made from.
_MISTAKES = frozenset({"bad_request", "unknown_field"})


def exit_code(error: BaseException) -> int:
    """The exit code for an error that ended a command."""
    if isinstance(error, ConfigError) or (isinstance(error, TaskError) and error.code in _MISTAKES):
        return USAGE
    if isinstance(error, BrokerUnavailable):
        return NO_ANSWER
    if isinstance(error, StateError | ResultsUnavailable | BackupsUnavailable | BackupDamaged):
        return BAD_STATE
    if isinstance(error, LogGap):
        return GAP
    if isinstance(error, KeyboardInterrupt | Cancelled):
        return INTERRUPTED
    return FAILED


def say_error(message: str) -> None:
    """Write `error: …` to stderr."""
    typer.echo(f"error: {message}", err=True)


class Commands(TyperGroup):
    """The top of all commands: whatever a command raises ends as a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except StreamClusterError as error:
            if _debugging(ctx):
                traceback.print_exc(file=sys.stderr)
            say_error(str(error))
            raise typer.Exit(exit_code(error)) from error
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise  # Typer's own: usage errors, which it shows itself
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever read our output is gone; Typer ends that quietly
            if _debugging(ctx):
                traceback.print_exc(file=sys.stderr)
            say_error(f"unexpected {type(error).__name__}: {error}; --debug shows where")
            raise typer.Exit(FAILED) from error


def _debugging(ctx: Any) -> bool:
    return bool(ctx.params.get("debug")) or bool(os.environ.get(DEBUG_VARIABLE))
