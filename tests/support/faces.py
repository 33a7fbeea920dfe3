"""Real faces for tests, used where they are: they are not part of this project."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import pytest

VARIABLE = "STREAM_CLUSTER_FACES_DIR"
DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "faces"


def faces_folder() -> Path | None:
    """The folder with `events.jsonl.gz` and `people.csv`; None when this machine has none."""
    folder = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else DEFAULT
    return folder if (folder / "events.jsonl.gz").is_file() else None


def require_faces() -> Path:
    """The folder, or skip the test."""
    folder = faces_folder()
    if folder is None:
        where = os.environ.get(VARIABLE) or "../shared/data/faces"
        pytest.skip(f"no real faces: {where} has no events.jsonl.gz ({VARIABLE} names another folder)")
    return folder


def face_messages(folder: Path) -> list[bytes]:
    """The object messages, one JSON document each, of the account `lfw`."""
    with gzip.open(folder / "events.jsonl.gz") as lines:
        return [line.rstrip(b"\n") for line in lines]


def unpack_images(folder: Path, target: Path) -> None:
    """Put the images of the faces into `target`, named as their events have them; without images.zip none."""
    if (folder / "images.zip").is_file():
        with zipfile.ZipFile(folder / "images.zip") as archive:
            archive.extractall(target)
