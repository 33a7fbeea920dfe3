"""Cartoon faces: every person has looks of their own, every photograph a little light and pose.

Pillow is imported when a face is drawn: whoever draws none does not wait for it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_cluster.generate.hashing import hashed_share

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Colour = tuple[int, int, int]

IMAGE_SIZE = 96
"""Width and height of an image in pixels."""

# Drawn larger and shrunk, which smooths the edges.
_SCALE = 3
_SKINS: tuple[Colour, ...] = (
    (255, 224, 196),
    (241, 194, 155),
    (216, 162, 116),
    (172, 116, 74),
    (112, 72, 46),
)
_HAIRS: tuple[Colour, ...] = (
    (38, 30, 26),
    (92, 58, 34),
    (150, 96, 48),
    (214, 178, 102),
    (178, 68, 36),
    (150, 150, 154),
)
_EYES: tuple[Colour, ...] = ((70, 48, 30), (52, 102, 150), (66, 122, 76), (92, 92, 96))
_SHIRTS: tuple[Colour, ...] = ((64, 92, 140), (150, 60, 60), (70, 120, 86), (120, 96, 150), (196, 160, 70))
_WALLS: tuple[Colour, ...] = ((206, 216, 222), (222, 214, 200), (200, 212, 200), (214, 204, 216))


@dataclass(frozen=True, slots=True)
class _Looks:
    """Shares in [0, 1), fixed for a person, that choose colours and proportions."""

    skin: float
    hair: float
    style: float
    eyes: float
    eye_gap: float
    eye_size: float
    brows: float
    nose: float
    mouth: float
    width: float
    height: float
    shirt: float
    glasses: float
    beard: float


def draw_face(person: int, variation: int, seed: int) -> bytes:
    """The face of `person` on the photograph `variation`: a JPEG of 96×96 pixels.

    The same arguments give the same picture.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - see above

    looks = _Looks(*_shares(seed, f"face-{person}", len(_Looks.__dataclass_fields__)))
    photo = _shares(seed, f"photo-{person}-{variation}", 5)
    side = IMAGE_SIZE * _SCALE
    canvas = Image.new("RGB", (side, side), _pick(_WALLS, photo[0]))
    # Pose: the head moves by up to four pixels and the face is lit between 86 and 110 percent.
    centre = (side / 2 + (photo[1] - 0.5) * 8 * _SCALE, side * 0.52 + (photo[2] - 0.5) * 8 * _SCALE)
    _draw_head(ImageDraw.Draw(canvas), looks, centre, smile=photo[4])
    light = 0.86 + 0.24 * photo[3]
    lit = canvas.point([min(255, int(level * light)) for level in range(256)] * 3)
    target = io.BytesIO()
    lit.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS).save(target, "JPEG", quality=85)
    return target.getvalue()


def _shares(seed: int, stream: str, count: int) -> list[float]:
    return [float(share) for share in hashed_share(seed, stream, np.arange(count, dtype=np.int64))]


def _pick(colours: tuple[Colour, ...], share: float) -> Colour:
    return colours[int(share * len(colours))]


def _darker(colour: Colour, factor: float) -> Colour:
    return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))


def _draw_head(draw: ImageDraw, looks: _Looks, centre: tuple[float, float], smile: float) -> None:
    """Draw shoulders, hair and face from back to front."""
    x, y = centre
    half_width = (22 + 8 * looks.width) * _SCALE
    half_height = (29 + 6 * looks.height) * _SCALE
    skin, hair = _pick(_SKINS, looks.skin), _pick(_HAIRS, looks.hair)
    bottom = IMAGE_SIZE * _SCALE
    draw.ellipse(
        (x - 42 * _SCALE, y + 27 * _SCALE, x + 42 * _SCALE, bottom * 1.4), _pick(_SHIRTS, looks.shirt)
    )
    draw.rectangle((x - 9 * _SCALE, y + 15 * _SCALE, x + 9 * _SCALE, y + 36 * _SCALE), _darker(skin, 0.9))
    _draw_hair_behind(draw, looks, (x, y, half_width, half_height), hair)
    draw.ellipse((x - half_width, y - half_height, x + half_width, y + half_height), skin)
    if looks.beard > 0.75:
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        draw.chord(box, 25, 155, _darker(hair, 0.95))
    _draw_fringe(draw, looks, (x, y, half_width, half_height), hair)
    _draw_eyes(draw, looks, (x, y), hair)
    _draw_nose_and_mouth(draw, looks, (x, y), skin, smile)


def _draw_hair_behind(
    draw: ImageDraw, looks: _Looks, head: tuple[float, float, float, float], hair: Colour
) -> None:
    x, y, half_width, half_height = head
    if looks.style < 0.1:
        return  # bald
    pad = 4 * _SCALE
    crown = (x - half_width - pad, y - half_height - pad, x + half_width + pad, y + half_height * 0.6)
    draw.ellipse(crown, hair)
    if looks.style > 0.6:  # long hair
        draw.rectangle((x - half_width - pad, y - 4 * _SCALE, x + half_width + pad, y + 30 * _SCALE), hair)


def _draw_fringe(
    draw: ImageDraw, looks: _Looks, head: tuple[float, float, float, float], hair: Colour
) -> None:
    x, y, half_width, half_height = head
    if looks.style < 0.1:
        return
    start, end = ((200, 340), (190, 310), (230, 350), (215, 325))[int(looks.style * 16) % 4]
    draw.chord((x - half_width, y - half_height, x + half_width, y + half_height), start, end, hair)


def _draw_eyes(draw: ImageDraw, looks: _Looks, centre: tuple[float, float], hair: Colour) -> None:
    x, y = centre
    gap = (8 + 4.5 * looks.eye_gap) * _SCALE
    size = (3.2 + 1.8 * looks.eye_size) * _SCALE
    eye_y = y - 5 * _SCALE
    for side in (-1, 1):
        eye_x = x + side * gap
        draw.ellipse((eye_x - size * 1.3, eye_y - size, eye_x + size * 1.3, eye_y + size), (250, 250, 250))
        iris = size * 0.75
        draw.ellipse((eye_x - iris, eye_y - iris, eye_x + iris, eye_y + iris), _pick(_EYES, looks.eyes))
        pupil = size * 0.35
        draw.ellipse((eye_x - pupil, eye_y - pupil, eye_x + pupil, eye_y + pupil), (15, 15, 18))
        brow_y = eye_y - size - (2 + 2 * looks.brows) * _SCALE
        tilt = (looks.brows - 0.5) * 3 * _SCALE * side
        brow = (eye_x - size * 1.5, brow_y + tilt, eye_x + size * 1.5, brow_y - tilt)
        draw.line(brow, _darker(hair, 0.7), int(1.8 * _SCALE))
        if looks.glasses > 0.7:
            rim = size * 1.75
            draw.ellipse(
                (eye_x - rim, eye_y - rim, eye_x + rim, eye_y + rim), outline=(30, 30, 34), width=_SCALE
            )
    if looks.glasses > 0.7:
        draw.line((x - gap + size * 1.7, eye_y, x + gap - size * 1.7, eye_y), (30, 30, 34), _SCALE)


def _draw_nose_and_mouth(
    draw: ImageDraw, looks: _Looks, centre: tuple[float, float], skin: Colour, smile: float
) -> None:
    x, y = centre
    wide = (2.5 + 3 * looks.nose) * _SCALE
    nose = (x - wide, y + 1 * _SCALE, x + wide, y + (7 + 2 * looks.nose) * _SCALE)
    draw.arc(nose, 20, 160, _darker(skin, 0.65), int(1.6 * _SCALE))
    half = (6 + 6 * looks.mouth) * _SCALE
    open_by = (2 + 4 * smile) * _SCALE
    mouth_y = y + 15 * _SCALE
    draw.chord((x - half, mouth_y - open_by, x + half, mouth_y + open_by), 0, 180, (168, 62, 66))
