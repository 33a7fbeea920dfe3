"""The result archive: a zip with clusters.jsonl, report.csv, images/ if asked for, and manifest.json.

Written in one pass to a temporary name, synced, then renamed, so a reader sees all of it or nothing. The
same snapshot and the same request give the same bytes: entries carry a fixed time, and nothing in them
depends on when or how fast they were made. The manifest comes last, for it counts the images.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from stream_cluster import files
from stream_cluster.config import ImageSettings, PageSettings
from stream_cluster.errors import ResultsUnavailable
from stream_cluster.faults import fault_point
from stream_cluster.messages import format_time
from stream_cluster.model import Interrupt, Progress
from stream_cluster.snapshot.clusters import Clusters
from stream_cluster.snapshot.columns import FIGURE_OF, IMAGE, Column, csv_value
from stream_cluster.snapshot.quality import Quality
from stream_cluster.snapshot.report.charts import Curve
from stream_cluster.snapshot.report.facts import read_facts, read_tracks
from stream_cluster.snapshot.report.listing import Shown
from stream_cluster.snapshot.report.merged import merged_by_components
from stream_cluster.snapshot.report.write import PageContent, make_page
from stream_cluster.snapshot.selection import UNKNOWN_TIME, Selection
from stream_cluster.state.schema import object_key
from stream_cluster.state.view import PartitionView

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip entry can carry
_COMPRESS_LEVEL = 1  # twice as fast as the default for a tenth more bytes
_BLOCK = 8192
_DIGEST_BLOCK_BYTES = 1 << 20
# The header of an entry, of 30 bytes: at its end the lengths of the name and of what follows that.
_LOCAL_HEADER = struct.Struct("<26x2H")


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A finished archive."""

    path: Path
    size_bytes: int
    sha256: str


EXTENSIONS = ("jpg", "png", "webp")


@dataclass(frozen=True, slots=True)
class SavedImages:
    """Images that the archive has already."""

    extension: npt.NDArray[np.int8]
    """Index into EXTENSIONS of each position; -1 for no image. Shape (n,)."""
    read: Callable[[int], bytes]
    """The image of a position that has one."""

    @classmethod
    def none(cls, n: int) -> SavedImages:
        """Those of a task without images."""
        return cls(np.full(n, -1, np.int8), lambda _: b"")


@dataclass(frozen=True, slots=True)
class ArchiveContent:
    """What an archive is made of."""

    view: PartitionView
    selection: Selection
    clusters: Clusters
    columns: Sequence[Column]
    """Columns of the report after the first two."""
    id_column: str
    """Name of the report's second column."""
    manifest: Mapping[str, Any]
    """The counts of images are added to it."""
    images: ImageSettings | None
    """Where images come from; None leaves them out."""
    page: PageSettings | None
    """Limits of report.html; None leaves it out."""
    quality: Quality
    components: Clusters | None
    """With average linkage, the connected components at the same threshold; for the page."""
    curve: Curve | None
    """Clusters at every threshold, for the page."""
    warnings: Sequence[Mapping[str, Any]]


def write_archive(
    target: Path, content: ArchiveContent, *, interrupt: Interrupt, progress: Progress
) -> ArchiveFile:
    """Write the archive of one snapshot; memory does not grow with the archive.

    Raises:
        Cancelled, TaskError: asked to stop; nothing is left behind.
        ResultsUnavailable: the file cannot be written; the message names it.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            files.make_folder(target.parent)
            with files.create(temporary) as file:
                temporary.chmod(files.GROUP)
                _write_zip(file, content, interrupt, progress)
                file.flush()
                fault_point("archive_sync")
                os.fsync(file.fileno())
            size_bytes, sha256 = temporary.stat().st_size, _sha256(temporary, interrupt)
            fault_point("archive_rename")
            temporary.replace(target)
            sync_directory(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ResultsUnavailable(f"archive {target}: {error.strerror or error}") from error
    return ArchiveFile(target, size_bytes, sha256)


def _write_zip(file: BinaryIO, content: ArchiveContent, interrupt: Interrupt, progress: Progress) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESS_LEVEL) as archive:
        with _entry(archive, "clusters.jsonl") as write:
            _write_jsonl(write, content, interrupt, progress)
        with _entry(archive, "report.csv") as write:
            for block in _report(content, interrupt, progress):
                write(block)
        manifest = {**content.manifest}
        saved = SavedImages.none(len(content.selection))
        if content.images is not None:
            images, saved = _save_images(archive, content, content.images, interrupt, progress)
            manifest["counts"] = {**manifest["counts"], "images": images}
        if content.page is not None:
            held = _write_page(
                archive,
                content,
                content.page,
                manifest=manifest,
                images=saved,
                interrupt=interrupt,
                progress=progress,
            )
            manifest["counts"] = {**manifest["counts"], "page": held}
        with _entry(archive, "manifest.json") as write:
            write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


@contextmanager
def _entry(archive: zipfile.ZipFile, name: str) -> Iterator[Callable[[bytes], object]]:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o640 << 16
    # The size is not known before the entry is written, and may pass 4 GiB.
    with archive.open(info, "w", force_zip64=True) as file:
        yield file.write


def _write_jsonl(
    write: Callable[[bytes], object], content: ArchiveContent, interrupt: Interrupt, progress: Progress
) -> None:
    encoder = msgspec.json.Encoder()
    selection, clusters = content.selection, content.clusters
    ids = selection.ids
    # Bytes: an item of an array costs far more to look at.
    low = None if selection.low is None else selection.low.tobytes()
    sampled = set(np.flatnonzero(content.quality.sampled).tolist())
    buffer = bytearray()
    # Positions and sizes as plain integers in blocks: a slice of an array costs more than a small cluster.
    for begin in range(0, len(clusters), _BLOCK):
        end = min(begin + _BLOCK, len(clusters))
        positions = iter(clusters.order[clusters.starts[begin] : clusters.starts[end]].tolist())
        figures = content.quality.figures(slice(begin, end)) | _time_spans(selection, clusters, begin, end)
        rows = zip(clusters.sizes[begin:end].tolist(), *figures.values(), strict=True)
        for cluster, (size, *values) in enumerate(rows, begin):
            members = list(itertools.islice(positions, size))
            objects = [ids[position] for position in members]
            line = {"cluster": cluster, "id": objects[0], "size": size}
            line.update(zip(figures, values, strict=True))
            line["objects"] = objects
            if cluster in sampled:
                line["sampled"] = True
            if low is not None and (marked := [ids[position] for position in members if low[position]]):
                line["low_quality"] = marked
            encoder.encode_into(line, buffer, -1)
            buffer += b"\n"
            if len(buffer) > 1 << 20:
                write(bytes(buffer))
                buffer.clear()
                interrupt.check()
                progress("clusters", cluster / len(clusters))
    write(bytes(buffer))
    progress("clusters", 1.0)


def _time_spans(selection: Selection, clusters: Clusters, begin: int, end: int) -> dict[str, list[Any]]:
    """First and last time of the clusters [begin, end); None where no member has one."""
    times_us = selection.times_us[clusters.order[clusters.starts[begin] : clusters.starts[end]]]
    starts = clusters.starts[begin:end] - clusters.starts[begin]
    # The oldest member is the first, and those without a time are the last, with the least number.
    first, last = times_us[starts], np.maximum.reduceat(times_us, starts)
    texts = {UNKNOWN_TIME: None} | {
        time_us: format_time(time_us)
        for time_us in np.union1d(first, last).tolist()
        if time_us != UNKNOWN_TIME
    }
    return {
        "first_time": [texts[time_us] for time_us in first.tolist()],
        "last_time": [texts[time_us] for time_us in last.tolist()],
    }


def _report(content: ArchiveContent, interrupt: Interrupt, progress: Progress) -> Iterator[bytes]:
    """report.csv (RFC 4180) in blocks of rows."""
    selection, clusters, columns = content.selection, content.clusters, content.columns
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["cluster", content.id_column, *(column.name for column in columns)])
    for begin in range(0, len(selection), _BLOCK):
        positions = clusters.order[begin : begin + _BLOCK]
        numbers = clusters.numbers[positions].tolist()
        ids = [csv_value(selection.ids[position]) for position in positions.tolist()]
        writer.writerows(zip(numbers, ids, *_columns(content, positions), strict=True))
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
        interrupt.check()
        progress("report", begin / len(selection))
    yield buffer.getvalue().encode()
    progress("report", 1.0)


def _columns(content: ArchiveContent, positions: npt.NDArray[np.int64]) -> list[list[Any]]:
    """The values of each column of the report, of its object or of its object's cluster."""
    of_objects = [column for column in content.columns if column.name not in FIGURE_OF]
    found = iter(_values(content.view, content.selection, positions, of_objects))
    figures: Mapping[str, list[Any]] = {}
    if len(of_objects) < len(content.columns):
        numbers = content.clusters.numbers[positions].astype(np.int64)
        figures = content.quality.figures(numbers) | {"size": content.clusters.sizes[numbers].tolist()}
    return [
        figures[FIGURE_OF[column.name]] if column.name in FIGURE_OF else next(found)
        for column in content.columns
    ]


def _values(
    view: PartitionView, selection: Selection, positions: np.ndarray[Any, Any], columns: Sequence[Column]
) -> list[list[Any]]:
    """Each column's values of the objects at `positions`, in that order."""
    if not columns:
        return []
    keys = [object_key(selection.space.space_id, row) for row in selection.rows[positions].tolist()]
    sql = (
        f"SELECT objects.key, {', '.join(column.sql for column in columns)} FROM objects "
        "WHERE objects.key IN (SELECT value FROM json_each(?))"
    )
    found = {key: values for key, *values in view.query(sql, [msgspec.json.encode(keys).decode()])}
    by_column = zip(*(found[key] for key in keys), strict=True)
    return [
        [column.render(value) for value in values] for column, values in zip(columns, by_column, strict=True)
    ]


def _save_images(
    archive: zipfile.ZipFile,
    content: ArchiveContent,
    settings: ImageSettings,
    interrupt: Interrupt,
    progress: Progress,
) -> tuple[dict[str, int], SavedImages]:
    """Entries below images/; returns their counts, and what is there now."""
    # Only a task with images pays for the clients that it may need.
    from stream_cluster.snapshot.images.save import Wanted, entry_name, save_images  # noqa: PLC0415

    selection, clusters = content.selection, content.clusters
    extension_of = np.full(len(selection), -1, np.int8)

    def wanted() -> Iterator[Wanted]:
        for begin in range(0, len(selection), _BLOCK):
            positions = clusters.order[begin : begin + _BLOCK]
            numbers = clusters.numbers[positions].tolist()
            ids = [selection.ids[position] for position in positions.tolist()]
            (references,) = _values(content.view, selection, positions, [IMAGE])
            yield from map(Wanted, numbers, ids, references, positions.tolist())

    def write(name: str, data: bytes) -> None:
        info = zipfile.ZipInfo(name, _EPOCH)
        info.external_attr = 0o640 << 16
        archive.writestr(info, data, zipfile.ZIP_STORED)  # images are compressed already

    def saved(one: Wanted, extension: str) -> None:
        extension_of[one.position] = EXTENSIONS.index(extension)

    def read(position: int) -> bytes:
        one = Wanted(int(clusters.numbers[position]), selection.ids[position], None)
        return _stored(archive, archive.getinfo(entry_name(one, EXTENSIONS[extension_of[position]])))

    counts = save_images(
        wanted(),
        len(selection),
        write,
        settings,
        account_id=selection.space.key.account_id,
        interrupt=interrupt,
        progress=progress,
        saved=saved,
    )
    assert archive.fp is not None
    archive.fp.flush()  # what is read back is read beside the buffer
    return counts, SavedImages(extension_of, read)


def _stored(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry that is not compressed. `ZipFile.read` takes as long as a thumbnail of it."""
    assert archive.fp is not None
    file = archive.fp.fileno()
    header = os.pread(file, _LOCAL_HEADER.size, entry.header_offset)
    begin = entry.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header))
    return os.pread(file, entry.file_size, begin)


def _write_page(
    archive: zipfile.ZipFile,
    content: ArchiveContent,
    settings: PageSettings,
    *,
    manifest: Mapping[str, Any],
    images: SavedImages,
    interrupt: Interrupt,
    progress: Progress,
) -> dict[str, int]:
    """report.html; returns what it holds."""
    selection = content.selection
    shown = Shown(
        selection.ids,
        content.clusters,
        content.quality,
        read_facts(content.view, selection, interrupt),
        EXTENSIONS,
        images.extension,
        selection.low,
        None if content.components is None else merged_by_components(content.clusters, content.components),
    )
    page = PageContent(
        manifest=manifest,
        shown=shown,
        warnings=content.warnings,
        curve=content.curve,
        tracks_of=lambda positions: read_tracks(content.view, selection, positions, interrupt),
        image_of=images.read,
    )
    blocks, held = make_page(page, settings, interrupt=interrupt, progress=progress)
    with _entry(archive, "report.html") as write:
        for block in blocks:
            write(block)
    return held


def _sha256(path: Path, interrupt: Interrupt) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_DIGEST_BLOCK_BYTES):
            interrupt.check()
            digest.update(block)
    return digest.hexdigest()


def sync_directory(directory: Path) -> None:
    """Make a rename in it durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
