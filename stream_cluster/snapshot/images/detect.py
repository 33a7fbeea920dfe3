"""The type of an image by its first bytes, and whether its structure reaches its end.

Nothing is decoded: a decoder is the last thing to run on bytes from elsewhere, and too slow.
"""

from __future__ import annotations

import re
import struct

from stream_cluster.snapshot.images.faults import ImageFault, NoImage

_JPEG, _PNG, _RIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"
_WEBP = b"WEBP"
_RIFF_HEADER = 12
# A marker: any number of fill bytes, then a byte that is not 0xFF (ITU T.81, B.1.1.2).
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def extension_of(data: bytes) -> str:
    """`jpg`, `png` or `webp`.

    Raises NoImage: `wrong_type` for anything else, `truncated` when it ends before its structure does, or
    what stands between is damaged so much that it cannot be followed.
    """
    try:
        if _begins(data, _JPEG):
            extension, whole = "jpg", _is_whole_jpeg(data)
        elif _begins(data, _PNG):
            extension, whole = "png", _is_whole_png(data)
        elif _begins(data, _RIFF) and _begins(data[8:_RIFF_HEADER], _WEBP):
            extension, whole = "webp", _is_whole_webp(data)
        else:
            raise NoImage(ImageFault.WRONG_TYPE)
    except (struct.error, IndexError):  # a field that the data ends before
        raise NoImage(ImageFault.TRUNCATED) from None
    if not whole:
        raise NoImage(ImageFault.TRUNCATED)
    return extension


def _begins(data: bytes, signature: bytes) -> bool:
    """Whether it begins with the signature, or could if it were longer."""
    return data[: len(signature)] == signature[: len(data)]


def _is_whole_jpeg(data: bytes) -> bool:
    """ITU T.81, annex B: segments with a frame header among them, a scan, an end."""
    position = 2
    has_frame = False
    while (marker := _MARKER.match(data, position)) is not None:
        code, position = marker[1][0], marker.end()
        if code in _ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2 or code == _END_OF_IMAGE[1]:
            return False
        has_frame |= code in _FRAMES
        position += length
        if code == _START_OF_SCAN:
            # In a scan 0xFF is followed by 0, so this is no data. Bytes after the end are common.
            return has_frame and data.rfind(_END_OF_IMAGE, position) >= 0
    return False


def _is_whole_png(data: bytes) -> bool:
    """PNG (third edition), 5.3: chunks from IHDR to IEND with image data between them."""
    position = len(_PNG)
    kinds: set[bytes] = set()
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if position > len(data) or (not kinds and kind != b"IHDR"):
            return False
        if kind == b"IEND":
            return b"IDAT" in kinds
        kinds.add(kind)


def _is_whole_webp(data: bytes) -> bool:
    """RFC 9649, 2.4: a RIFF of the size that it says, which begins with a whole VP8, VP8L or VP8X chunk."""
    (size,) = struct.unpack_from("<I", data, 4)
    kind, length = struct.unpack_from("<4sI", data, _RIFF_HEADER)
    fits = _RIFF_HEADER + 8 + length <= 8 + size <= len(data)
    return kind in {b"VP8 ", b"VP8L", b"VP8X"} and fits
