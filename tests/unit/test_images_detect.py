"""Types of images by their bytes, whole and cut."""

from __future__ import annotations

import pytest

from stream_cluster.snapshot.images.detect import extension_of
from stream_cluster.snapshot.images.faults import NoImage
from tests.support.images import picture


def fault_of(data):
    with pytest.raises(NoImage) as caught:
        extension_of(data)
    return caught.value.fault.value


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_a_whole_image_is_known_by_its_bytes(extension):
    assert extension_of(picture(extension)) == extension


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_an_image_cut_anywhere_is_never_whole(extension):
    data = picture(extension)
    assert {fault_of(data[:length]) for length in range(len(data))} == {"truncated"}


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_bytes_after_the_end_of_an_image_do_not_matter(extension):
    assert extension_of(picture(extension) + b"\0" * 100) == extension


@pytest.mark.parametrize(
    "data",
    [b"GIF89a" + b"\0" * 40, b"<html>", b"RIFF\0\0\0\0WAVEfmt ", b"\xff\xd9\xff\xff", b"PK\3\4", b"\x89PNX"],
)
def test_anything_else_is_of_the_wrong_type(data):
    assert fault_of(data) == "wrong_type"


def test_no_bytes_at_all_are_a_cut_image():
    assert fault_of(b"") == "truncated"


@pytest.mark.parametrize(
    "data",
    [
        # A scan without a frame, a segment of an impossible length, the end before a scan, fill bytes alone.
        b"\xff\xd8\xff\xda\x00\x02\x11\x22\xff\xd9",
        b"\xff\xd8\xff\xe0\x00\x01" + b"\0" * 20,
        b"\xff\xd8\xff\xd9" + b"\0" * 20,
        b"\xff\xd8" + b"\xff" * 100_000,
        # The first chunk is no header; there is no image data.
        b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82",
        b"\x89PNG\r\n\x1a\n\0\0\0\0IDAT\0\0\0\0\0\0\0\0IEND\xaeB`\x82",
        # A chunk that is larger than the file says that it is.
        b"RIFF\x10\0\0\0WEBPVP8 \xff\xff\0\0" + b"\0" * 100_000,
        b"RIFF\x10\0\0\0WEBPJUNK\x04\0\0\0" + b"\0" * 100,
    ],
)
def test_a_structure_that_cannot_be_followed_is_told(data):
    assert fault_of(data) == "truncated"


def test_the_end_of_a_thumbnail_inside_is_not_that_of_the_image():
    data = picture("jpg")
    thumbnail = b"\xff\xe1" + (2 + len(data)).to_bytes(2, "big") + data
    whole = data[:2] + thumbnail + data[2:]
    assert extension_of(whole) == "jpg"
    assert fault_of(whole[:-2]) == "truncated"
