"""A process measured from outside: wall clock, CPU time, peak memory."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process used from its start to its end."""

    returncode: int
    seconds: float
    cpu_s: float
    """User and system time."""
    peak_memory_bytes: int
    """High-water mark of resident memory."""


class Measured:
    """A running process whose peak memory is followed.

    `ru_maxrss` does not serve: a child begins with the high-water mark of the process that started it. VmHWM
    begins anew with the child's own program, but is gone when it ends, so it is read again and again.
    """

    def __init__(self, command: list[str], **options: Any) -> None:
        """Start it; options as for `subprocess.Popen`."""
        self._began = time.perf_counter()
        self.process: subprocess.Popen[Any] = subprocess.Popen(command, **options)
        self._peak_bytes = 0
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        path = Path(f"/proc/{self.process.pid}/status")
        while True:
            try:
                lines = path.read_text().splitlines()
            except OSError:
                return
            marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
            if not marks:  # a zombie has none
                return
            self._peak_bytes = max(self._peak_bytes, marks[0] * 1024)
            time.sleep(_POLL_S)

    @property
    def peak_bytes(self) -> int:
        """High-water mark of resident memory so far."""
        return self._peak_bytes

    def wait(self) -> Usage:
        """Wait for its end."""
        _, status, usage = os.wait4(self.process.pid, 0)
        seconds = time.perf_counter() - self._began
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self._thread.join()
        return Usage(
            self.process.returncode,
            round(seconds, 3),
            round(usage.ru_utime + usage.ru_stime, 2),
            self._peak_bytes,
        )


def peak_memory_bytes() -> int:
    """High-water mark of resident memory of this very process so far."""
    return _memory_bytes("VmHWM")


def resident_memory_bytes(pid: int | None = None) -> int:
    """Resident memory of a process now; without a number, of this very one."""
    return _memory_bytes("VmRSS", pid)


def _memory_bytes(name: str, pid: int | None = None) -> int:
    lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def run_measured(command: list[str], **options: Any) -> tuple[Usage, str]:
    """Run a command to its end. Returns what it used and its standard output."""
    measured = Measured(command, stdout=subprocess.PIPE, text=True, **options)
    assert measured.process.stdout is not None
    output = measured.process.stdout.read()
    return measured.wait(), output
