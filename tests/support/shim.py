"""Builds the preloaded library of `shim.c` and controls it: clocks that jump, files that cannot be synced."""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
_LAYOUT = struct.Struct("<qii240s")


class Shim:
    """One service's shim; several processes may share it, one after another."""

    def __init__(self, folder: Path) -> None:
        """Build it in `folder`. Fails the test without a C compiler, which `make setup` needs too."""
        library, control = folder / "shim.so", folder / "shim.control"
        command = [
            "cc",
            "-shared",
            "-fPIC",
            "-O1",
            "-Wall",
            "-Werror",
            "-o",
            str(library),
            str(SOURCE),
            "-ldl",
        ]
        subprocess.run(command, check=True)
        control.write_bytes(_LAYOUT.pack(0, 0, 0, b""))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)
        self.environment = {"LD_PRELOAD": str(library), "SHIM_CONTROL": str(control)}
        """For the process that is to be under its influence."""

    def jump(self, seconds: int) -> None:
        """Move the process's wall clock; 0 puts it right."""
        struct.pack_into("<q", self._memory, 0, seconds)

    def fail_syncs(self, path_part: str, count: int = -1) -> None:
        """Let the next `count` syncs of files whose path holds `path_part` fail with EIO; all if negative."""
        struct.pack_into("<240s", self._memory, 16, path_part.encode())
        struct.pack_into("<ii", self._memory, 8, count, 0)

    @property
    def syncs_failed(self) -> int:
        """Since `fail_syncs`."""
        return struct.unpack_from("<i", self._memory, 12)[0]
