"""Files that are not for everybody, whatever the umask: what they hold is about people."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, cast

OWNER = 0o600
GROUP = 0o640


def create(path: Path, mode: int = GROUP) -> BinaryIO:
    """An empty file to be written and read, never with wider permissions; one that is there keeps its own.

    Raises:
        OSError: it cannot be opened.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, mode)

    return cast("BinaryIO", open(path, "w+b", opener=opener))


def make_folder(path: Path, mode: int = 0o750) -> None:
    """A folder and those above it, as far as they are not there. Raises OSError."""
    # `Path.mkdir` gives the mode to the last one only: the names in the others may be of people, too.
    above = [folder for folder in path.parents if not folder.exists()]
    for missing in [*reversed(above), path]:
        missing.mkdir(mode=mode, exist_ok=True)
