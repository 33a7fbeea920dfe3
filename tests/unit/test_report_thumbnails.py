"""Thumbnails: decoders that are slow, die or talk nonsense cost one picture, and no more."""

from __future__ import annotations

import io
import os
import struct
import sys
import time

import pytest
from PIL import Image

from stream_cluster.errors import Cancelled
from stream_cluster.model import Interrupt
from stream_cluster.snapshot.report.thumbnail_worker import thumbnail
from stream_cluster.snapshot.report.thumbnails import Thumbnailer
from tests.support.images import FORMATS, later, picture

# A decoder for tests: what it does stands in the image.
_WORKER = """
import os, struct, sys, time
while header := sys.stdin.buffer.read(4):
    data = sys.stdin.buffer.read(struct.unpack("<I", header)[0])
    if data == b"die": os._exit(1)
    if data == b"hang": time.sleep(600)
    if data == b"nonsense": data = None; sys.stdout.buffer.write(b"\\xff" * 8)
    if data == b"environment": data = ",".join(sorted(os.environ)).encode()
    if data is not None: sys.stdout.buffer.write(struct.pack("<I", len(data)) + data)
    sys.stdout.buffer.flush()
"""


def made(*images, interrupt=None, answer_timeout_s=60.0):
    command = (sys.executable, "-c", _WORKER)
    with Thumbnailer(96, interrupt or Interrupt(), command, answer_timeout_s) as thumbnailer:
        return list(thumbnailer.make(lambda image=image: image for image in images))


@pytest.mark.parametrize("extension", FORMATS)
def test_each_type_of_image_becomes_a_small_jpeg(extension):
    with Image.open(io.BytesIO(thumbnail(picture(extension, side=200), 50))) as image:
        assert (image.format, image.size) == ("JPEG", (50, 50))


def test_what_is_small_is_not_made_larger():
    with Image.open(io.BytesIO(thumbnail(picture(side=24), 96))) as image:
        assert image.size == (24, 24)


def test_a_photograph_that_lies_on_its_side_is_turned_and_loses_its_metadata():
    source = Image.new("RGB", (80, 40))
    exif = source.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010F] = "camera"
    out = io.BytesIO()
    source.save(out, "JPEG", exif=exif)
    with Image.open(io.BytesIO(thumbnail(out.getvalue(), 40))) as image:
        assert image.size == (20, 40)
        assert not image.getexif()


def test_a_large_photograph_keeps_its_shape_and_loses_its_comment():
    source = Image.linear_gradient("L").resize((1600, 900)).convert("RGB")
    out = io.BytesIO()
    source.save(out, "JPEG", comment=b"camera 7", quality=95)
    small = thumbnail(out.getvalue(), 96)
    assert b"camera 7" not in small
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (96, 54)
        # What a photograph shows is where it was: the gradient goes from black to white.
        rows = [image.getpixel((48, row))[0] for row in (0, 13, 27, 40, 53)]
    assert rows == sorted(rows)
    assert rows[0] < 12
    assert rows[-1] > 243


@pytest.mark.parametrize("mode", ["L", "CMYK", "1", "P", "LA"])
def test_colours_of_every_kind_become_a_picture(mode):
    out = io.BytesIO()
    Image.new("RGB", (60, 30), (200, 40, 60)).convert(mode).save(out, "JPEG" if mode == "CMYK" else "PNG")
    with Image.open(io.BytesIO(thumbnail(out.getvalue(), 20))) as image:
        assert image.size == (20, 10)
        assert image.mode in {"RGB", "L"}


def test_transparent_becomes_white():
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(out, "PNG")
    with Image.open(io.BytesIO(thumbnail(out.getvalue(), 8))) as image:
        assert min(image.getpixel((4, 4))) > 250


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xd9",
        picture()[:60],
        picture("png")[:-30],
        os.urandom(100),
        b"<svg/>",
        b"GIF89a" + bytes(40),
    ],
)
def test_what_is_no_image_gives_nothing(data):
    assert thumbnail(data, 96) == b""


def test_an_image_of_too_many_pixels_is_not_decoded():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = bytearray(picture("png"))
    png[16 : 16 + len(header)] = header
    began = time.monotonic()
    assert thumbnail(bytes(png), 96) == b""
    assert time.monotonic() - began < 10


def test_pictures_come_in_order_through_the_real_program():
    with Thumbnailer(10, Interrupt()) as thumbnailer:
        images = [picture(colour=number, side=40) if number % 3 else b"no" for number in range(20)]
        small = list(thumbnailer.make(lambda image=image: image for image in images))
    assert small == [thumbnail(image, 10) for image in images]
    assert [bool(one) for one in small] == [bool(number % 3) for number in range(20)]


def test_a_decoder_that_dies_or_talks_nonsense_costs_its_image_alone():
    assert made(b"a", b"die", b"b", b"nonsense", b"c", b"d") == [b"a", b"", b"b", b"", b"c", b"d"]


def test_what_a_decoder_said_before_it_died_is_kept():
    images = [b"%d" % number if number % 10 else b"die" for number in range(1, 100)]
    assert made(*images) == [b"" if image == b"die" else image for image in images]


def test_images_and_answers_that_are_larger_than_a_pipe_do_not_wait_for_each_other():
    images = [bytes([number]) * (3 << 20) for number in range(12)]
    assert made(*images) == images


def test_no_more_images_are_read_than_may_be_held():
    began = []

    def image(number):
        began.append(number)
        return b"x" * (1 << 20)

    command = (sys.executable, "-c", _WORKER)
    with Thumbnailer(96, Interrupt(), command, 60.0) as thumbnailer:
        for number, _ in enumerate(thumbnailer.make(lambda n=n: image(n) for n in range(40))):
            assert len(began) - number <= 10  # 8 MiB, the one in hand and the one that was just given
    assert began == list(range(40))


def test_whoever_takes_the_thumbnails_may_take_longer_than_a_decoder():
    command = (sys.executable, "-c", _WORKER)
    with Thumbnailer(96, Interrupt(), command, 1.5) as thumbnailer:
        taken = []
        for one in thumbnailer.make(lambda n=n: b"%d" % n for n in range(200)):
            if len(taken) == 50:
                time.sleep(2.5)
            taken.append(one)
    assert taken == [b"%d" % number for number in range(200)]


def test_a_decoder_that_hangs_is_ended():
    assert made(b"a", b"hang", b"b", answer_timeout_s=1.5)[::2] == [b"a", b"b"]


def test_a_decoder_knows_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("STREAM_CLUSTER_KAFKA__SASL_PASSWORD", "secret")
    (names,) = made(b"environment")
    assert b"STREAM_CLUSTER" not in names


def test_a_cancel_is_noticed_while_a_decoder_hangs():
    interrupt = Interrupt()
    waiting = later(0.3, interrupt.cancel)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        made(b"hang", b"hang", b"hang", b"hang", interrupt=interrupt)
    assert time.monotonic() - began < 20
    waiting.join()
