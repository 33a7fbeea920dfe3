"""Files that are not for everybody, whatever the umask: what they hold is about people."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, cast

OWNER = 0o600
GROUP = 0o640
FOLDER = 0o750


def create(path: Path, mode: int = GROUP) -> BinaryIO:
    """An empty file to be written and read, never with wider permissions; one that is there keeps its own.

    Raises:
        OSError: it cannot be opened.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, mode)

    return cast("BinaryIO", open(path, "w+b", opener=opener))
