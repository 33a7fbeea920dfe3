"""Pictures with Matplotlib, which is optional: `pip install 'stream-cluster[plot]'`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from stream_cluster import files
from stream_cluster.errors import InputError

FORMATS = ("png", "svg")


def check_picture(target: Path) -> None:
    """Find out before the work, not after it, that `--plot` cannot be done. Raises InputError."""
    _format_of(target)
    _require_matplotlib()


def _require_matplotlib() -> None:
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as missing:
        raise InputError(
            f"--plot needs Matplotlib ({missing}): pip install 'stream-cluster[plot]'; the output in the "
            "terminal does without"
        ) from missing


def new_figure(width: float, height: float) -> Any:
    """An empty figure, inches wide and high. Raises InputError without Matplotlib."""
    _require_matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, see above

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, target: Path) -> None:
    """Write a figure in the format that the name ends in. Equal figures give equal bytes.

    Raises:
        InputError: another format, or the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - optional, see above

    picture_format = _format_of(target)
    nameless = {"Date": None} if picture_format == "svg" else {"Software": None}
    try:
        style: dict[Any, Any] = {"svg.hashsalt": "stream-cluster", "svg.fonttype": "none"}
        with mpl.rc_context(style), files.create(target) as file:
            figure.savefig(file, format=picture_format, dpi=120, metadata=nameless)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error


def _format_of(target: Path) -> str:
    suffix = target.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise InputError(f"--plot {target}: found the ending {target.suffix!r}, expected .png or .svg")
    return suffix
