"""Which archives hold given objects, found by reading them: no later change reaches what is in an archive."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO

import msgspec

from stream_cluster.errors import ResultsUnavailable
from stream_cluster.model import ObjectType

_BLOCK_BYTES = 1 << 20
# A string of JSON, and what follows it: a colon makes it a key.
_STRING = re.compile(rb'("(?:[^"\\]|\\.)*")(.)', re.DOTALL)
_UNREADABLE = (
    ResultsUnavailable,
    *(OSError, zipfile.BadZipFile, zlib.error, msgspec.MsgspecError, KeyError, EOFError),
)

Opener = Callable[[], IO[bytes]]
"""Opens an archive for reading; seekable."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An archive that holds an object, or one that could not be searched."""

    name: str
    problem: str | None
    """Why it could not be read; None when it holds one of the objects."""


def archives_with(
    archives: Iterable[tuple[str, Opener]],
    object_type: ObjectType | None,
    object_ids: Collection[str] | None,
) -> Iterator[Holder]:
    """Those of one account's archives that hold any of the objects, in the order given.

    Memory does not grow with an archive. An archive that cannot be read is reported, never passed over.

    Args:
        archives: (name, opener).
        object_type: of the objects; an event and a face may have the same id. None is either.
        object_ids: None is any object at all.
    """
    # As the archive spells them.
    wanted = None if object_ids is None else {msgspec.json.encode(object_id) for object_id in object_ids}
    for name, opener in archives:
        try:
            with closing(opener()) as file, zipfile.ZipFile(file) as archive:
                holds = _holds(archive, object_type, wanted)
        except _UNREADABLE as error:
            yield Holder(name, f"{type(error).__name__}: {error}")
        else:
            if holds:
                yield Holder(name, None)


def _holds(archive: zipfile.ZipFile, object_type: ObjectType | None, wanted: set[bytes] | None) -> bool:
    manifest = msgspec.json.decode(archive.read("manifest.json"))
    if object_type is not None and manifest["parameters"]["object_type"] != object_type:
        return False
    with archive.open("clusters.jsonl") as file:
        return wanted is None or any(string in wanted for string in _strings(file))


def _strings(file: IO[bytes]) -> Iterator[bytes]:
    """Every string of a file of JSON that is no key, with its quotes. A line may be longer than memory."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        data = rest + block
        end = 0
        for match in _STRING.finditer(data):
            if match[2] != b":":
                yield match[1]
            end = match.end(1)
        # What is left may be the beginning of a string; the end of one before it is not seen again.
        rest = data[end:]
