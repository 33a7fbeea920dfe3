"""A child process in a group of its own that cannot outlive this one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Waits for the end of its standard input, a pipe whose other end only the launcher holds, then kills the
# process group $pid (its number is the last line read) and removes the folder $1, and $2, its parent, once
# that is empty. Linux's PDEATHSIG would be shorter, but it fires when the *thread* that started the child
# ends, and needs code between fork and exec.
_GUARD = """
while read -r line; do pid=$line; done
[ -n "$pid" ] && kill -KILL "-$pid"
rm -rf -- "$1"
rmdir -- "$2"
"""


class GuardedProcess:
    """A running command: killed, and its folder removed, when this process ends in whatever way."""

    def __init__(self, command: Sequence[str], *, folder: Path, log_path: Path) -> None:
        """Start `command` inside `folder`, its output appended to `log_path`. Raises OSError."""
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(folder), str(folder.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A session of its own, so that Ctrl-C or the end of a terminal does not reach it.
            start_new_session=True,
        )
        try:
            with log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    start_new_session=True,
                )
            self._tell_guard()
        except BaseException:
            self._dismiss_guard()
            raise

    @property
    def pid(self) -> int:
        """Number of the process, and of its group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while the process runs; negative: the signal that ended it."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; nothing happens when it has ended."""
        if self.exit_code is None:
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End the group at once (SIGKILL) and wait for it. Safe to call again."""
        self.send(signal.SIGKILL)
        self._process.wait()
        # Only now: as long as the process has not been waited for, its number cannot be another's.
        self._dismiss_guard()

    def _tell_guard(self) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{self.pid}\n".encode())
        self._guard.stdin.flush()

    def _dismiss_guard(self) -> None:
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
