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

from PIL import Image, ImageOps

_FORMATS = ("JPEG", "PNG", "WEBP")
_MOST_PIXELS = 50_000_000
_MOST_MEMORY_BYTES = 2 << 30
_QUALITY = 72
_WHITE = (255, 255, 255)


def thumbnail(data: bytes, pixels: int) -> bytes:
    """The image as a JPEG, its longer side `pixels` at most, upright; empty when it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                return b""
            image.draft("RGB", (2 * pixels, 2 * pixels))
            small = _flat(image)
            small.thumbnail((pixels, pixels), Image.Resampling.BICUBIC)
            out = io.BytesIO()
            ImageOps.exif_transpose(small).save(out, "JPEG", quality=_QUALITY)
            return out.getvalue()
    # Decoders raise whatever their code happens to meet, and a broken image is an answer like any other.
    except Exception:
        return b""


def _flat(image: Image.Image) -> Image.Image:
    """In RGB, on white where it is transparent; what its metadata say of its orientation is kept."""
    exif = image.getexif()
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        flat = Image.new("RGB", layer.size, _WHITE)
        flat.paste(layer, mask=layer.getchannel("A"))
    else:
        flat = image.convert("RGB")
    flat.info = {"exif": exif.tobytes()} if exif else {}
    return flat


def limit() -> None:
    """Bound what the process may use from here on."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes are no files


def main() -> None:
    """Answer until the input ends."""
    pixels = int(sys.argv[1])
    Image.init()
    limit()
    while header := sys.stdin.buffer.read(4):
        (length,) = struct.unpack("<I", header)
        made = thumbnail(sys.stdin.buffer.read(length), pixels)
        sys.stdout.buffer.write(struct.pack("<I", len(made)) + made)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
