"""Generated events in files: JSON lines, the truth as CSV, the drawn images."""

from __future__ import annotations

import contextlib
import gzip
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from stream_cluster import files
from stream_cluster.errors import InputError
from stream_cluster.generate.events import generate_events
from stream_cluster.generate.faces import draw_face
from stream_cluster.generate.options import Fault, GenerateOptions
from stream_cluster.model import Progress, no_progress

# Descriptors hardly compress: a higher level costs time and saves little.
_GZIP_LEVEL = 1
_PROGRESS_EVERY = 256


@dataclass(frozen=True, slots=True)
class GenerateSummary:
    """What was written."""

    events: int
    """All messages, broken ones included."""
    rejections: dict[Fault, int]
    """Broken messages by the reason they must be rejected with."""
    images: int
    """Drawn images, one per good message when asked for."""


def write_events(
    options: GenerateOptions,
    output: Path | None,
    truth: Path | None = None,
    images: Path | None = None,
    progress: Progress = no_progress,
) -> GenerateSummary:
    """Write events as JSON lines to `output`, gzipped if its name ends in `.gz`; to standard output if None.

    `truth` gets a CSV of `event_id,person` of the good events. `images` is a folder that gets the JPEG of
    every good event under the name of its `image` field. Files appear under their names only when complete.
    A file has no partitions, so the fault `wrong_partition` is left out.
    Raises `InputError` for a format other than JSON and for paths that cannot be written.
    """
    options = _options_for_files(options, with_images=images is not None)
    rejections: dict[Fault, int] = {}
    drawn = 0
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(_writer(output))
        rows = stack.enter_context(_writer(truth)) if truth is not None else None
        if rows is not None:
            rows.write(b"event_id,person\n")
        if images is not None:
            _make_folder(images)
        for record in generate_events(options):
            lines.write(record.value)
            lines.write(b"\n")
            if record.photo % _PROGRESS_EVERY == 0:
                progress("generate", record.photo / options.events)
            if record.expected_reason is not None:
                rejections[record.expected_reason] = rejections.get(record.expected_reason, 0) + 1
                continue
            if rows is not None:
                rows.write(f"{record.event_id},{record.person}\n".encode())
            if images is not None and record.image is not None:
                picture = draw_face(record.person, record.photo, options.seed)
                with files.create(images / record.image) as file:
                    file.write(picture)
                drawn += 1
    progress("generate", 1.0)
    return GenerateSummary(options.events, rejections, drawn)


def _options_for_files(options: GenerateOptions, *, with_images: bool) -> GenerateOptions:
    if options.format != "json":
        raise InputError(f"generate: files hold JSON lines, so the format cannot be {options.format}")
    faults = tuple(fault for fault in options.faults if fault != "wrong_partition")
    return replace(options, faults=faults, with_images=with_images)


def _make_folder(path: Path) -> None:
    try:
        files.make_folder(path)
    except OSError as error:
        raise InputError(f"generate: cannot make the folder {path}: {error.strerror}") from error


@contextlib.contextmanager
def _writer(path: Path | None) -> Iterator[IO[bytes]]:
    """A binary file that gets its name when it is complete; standard output if `path` is None."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        raw = files.create(partial)
    except OSError as error:
        raise InputError(f"generate: cannot write {path}: {error.strerror}") from error
    try:
        with raw:
            if path.suffix == ".gz":
                # No time and no name in the header: equal options give equal files.
                with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield raw
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
