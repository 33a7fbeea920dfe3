"""References to images: which root one belongs to, and what may be looked up there.

A reference is a relative path, taken literally. Whatever reads it behind us may decode it once more, so it
has to be harmless in every such reading, not only in ours.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TypeVar
from urllib.parse import unquote

from stream_cluster.config.image_roots import ImageRoot
from stream_cluster.snapshot.images.faults import ImageFault, NoImage

_Root = TypeVar("_Root", bound=ImageRoot)
# Each reading is decoded or normalised from another one; a name that people or cameras give has two or three.
_MOST_READINGS = 12


def parts_of(reference: str) -> tuple[str, ...]:
    """The components of a reference, none of which leads anywhere but down.

    Raises NoImage (`refused`) for what is absolute, a URL, has an empty, `.` or `..` component, a backslash,
    or a character that is not printable, be it as it stands, percent-decoded any number of times, or in
    Unicode's compatibility form.
    """
    parts = tuple(reference.split("/"))
    for reading in _readings(reference):
        components = reading.split("/")
        # An encoded slash would make another path of it.
        if len(components) != len(parts) or "\\" in reading or not reading.isprintable():
            raise NoImage(ImageFault.REFUSED)
        for component in components:
            # Some servers drop what follows a semicolon, others dots and spaces at the end of a name.
            if not component.partition(";")[0].strip(" ."):
                raise NoImage(ImageFault.REFUSED)
    return parts


def _readings(reference: str) -> Iterator[str]:
    """The reference, and all that decoding and normalising in any order can make of it."""
    if reference.isascii() and "%" not in reference:
        yield reference
        return
    readings = [reference]
    for reading in readings:  # grows as it is read
        yield reading
        if len(readings) > _MOST_READINGS:
            raise NoImage(ImageFault.REFUSED)
        try:
            others = [unquote(reading, errors="strict"), unicodedata.normalize("NFKC", reading)]
        except UnicodeDecodeError:  # such as an overlong form of a dot, which lax decoders accept
            raise NoImage(ImageFault.REFUSED) from None
        readings += [other for other in dict.fromkeys(others) if other not in readings]


def choose_root(roots: Sequence[_Root], reference: str) -> tuple[_Root, str]:
    """The root with the longest prefix that the reference begins with, and the rest of the reference.

    Raises NoImage (`no_root`) when there is none.
    """
    matching = [root for root in roots if reference.startswith(root.prefix)]
    if not matching:
        raise NoImage(ImageFault.NO_ROOT)
    root = max(matching, key=_prefix_length)
    return root, reference[len(root.prefix) :]


def _prefix_length(root: ImageRoot) -> int:
    return len(root.prefix)
