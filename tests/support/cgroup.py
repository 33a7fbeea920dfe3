"""A memory limit of the kernel for one process, as a container has it: beyond it the process is killed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.kafka import wait_until

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class MemoryGroup:
    """A control group of version 1 or 2."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        is_v1 = (folder / "memory.limit_in_bytes").exists()
        self._limit = folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")
        self._usage = folder / ("memory.usage_in_bytes" if is_v1 else "memory.current")

    def take(self, pid: int) -> None:
        """Put a process under it; what it allocates from now on counts."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def allow(self, limit_bytes: int) -> None:
        """Set the limit. Raises OSError."""
        self._limit.write_text(str(limit_bytes))

    def tighten(self) -> None:
        """Leave no room above what is used now."""
        # Refused while more is used than can be given back: then the next attempt counts.
        with suppress(OSError):
            self.allow(int(self._usage.read_text()))


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A new group, or a skipped test where this user may make none."""
    parent = _V1 if _V1.is_dir() else _V2
    folder = parent / f"stream-cluster-{uuid.uuid4().hex[:10]}"
    try:
        folder.mkdir()
        group = MemoryGroup(folder)
        group.allow(1 << 40)
    except OSError as reason:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no memory control group can be made: {reason}")
    try:
        yield group
    finally:

        def is_gone() -> bool:
            with suppress(OSError):
                folder.rmdir()
            return not folder.exists()

        wait_until(is_gone, 10, "the end of the control group")
