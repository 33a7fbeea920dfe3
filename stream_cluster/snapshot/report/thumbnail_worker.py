"""The program that makes thumbnails: bytes from elsewhere are decoded here and nowhere else.

    python -m stream_cluster.snapshot.report.thumbnail_worker PIXELS

It reads images from standard input, each behind its length (uint32, little-endian), and answers each on
standard output in the same form: a JPEG without metadata, or nothing for what cannot be decoded. It has
limits on memory and files, so that a hostile image ends no more than this process.
"""

from __future__ import annotations

import io
import resource
import struct
import sys

# Each of these makes itself known to `Image.open`. It would import all of Pillow's forty others to look for
# one that it has not met.
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

_FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
)
_MOST_PIXELS = 50_000_000
_MOST_MEMORY_BYTES = 2 << 30
_QUALITY = 72
_WHITE = (255, 255, 255)
# A JPEG is decoded at a half, a quarter or an eighth of its size, as long as it stays this much larger than
# the thumbnail: what is decoded only to be thrown away costs most of the time of a photograph.
_SPARE = 1.25
_ORIENTATION = 0x0112


def thumbnail(data: bytes, pixels: int) -> bytes:
    """The image as a JPEG, its longer side `pixels` at most, upright; empty when it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                return b""
            orientation = image.getexif().get(_ORIENTATION, 1)
            small = _small(image, pixels)
            small.info = {}  # a comment would be kept
            if orientation != 1:
                small.getexif()[_ORIENTATION] = orientation
                small = ImageOps.exif_transpose(small)
            out = io.BytesIO()
            small.save(out, "JPEG", quality=_QUALITY)
            return out.getvalue()
    # Decoders raise whatever their code happens to meet, and a broken image is an answer like any other.
    except Exception:
        return b""


def _small(image: Image.Image, pixels: int) -> Image.Image:
    """Grey or in RGB, on white where it is transparent."""
    share = min(1.0, pixels / max(image.size))
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    image.draft("RGB", (int(size[0] * _SPARE), int(size[1] * _SPARE)))
    flat = _flat(image)
    return flat if flat.size == size else flat.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _flat(image: Image.Image) -> Image.Image:
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        flat = Image.new("RGB", layer.size, _WHITE)
        flat.paste(layer, mask=layer.getchannel("A"))
        return flat
    return image if image.mode in {"RGB", "L"} else image.convert("RGB")


def limit() -> None:
    """Bound what the process may use from here on."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes are no files


def main() -> None:
    """Answer until the input ends."""
    pixels = int(sys.argv[1])
    limit()
    while header := sys.stdin.buffer.read(4):
        (length,) = struct.unpack("<I", header)
        made = thumbnail(sys.stdin.buffer.read(length), pixels)
        sys.stdout.buffer.write(struct.pack("<I", len(made)) + made)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
