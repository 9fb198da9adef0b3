# SPDX-License-Identifier: Apache-2.0
"""A synthetic drive made from one picture of a face: the camera pans and zooms, the light changes, the eyes close.

The first frame is the picture itself. Eyes are closed by warping: the upper lid is pulled down over the eye, which
stretches the skin above it and squeezes what is below, so a landmark network sees a real lid and not a painted one.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def close_eye(picture: np.ndarray, eye: np.ndarray, amount: float) -> None:
    """Pulls down the upper lid of one eye, in place.

    picture: H x W x 3 uint8. eye: 6 x 2, pixels: outer corner, two points of the upper lid, inner corner, two points of
    the lower lid. amount: 0 (open) .. 1 (closed).
    """
    corners, upper, lower = eye[[0, 3]], eye[1:3].mean(axis=0), eye[4:6].mean(axis=0)
    centre, width = corners.mean(axis=0), float(np.linalg.norm(corners[1] - corners[0]))
    top, bottom = int(centre[1] - 0.8 * width), int(centre[1] + 0.6 * width)
    left, right = int(centre[0] - 0.7 * width), int(centre[0] + 0.7 * width)
    region = picture[top:bottom, left:right].astype(np.float32)
    rows = np.arange(bottom - top, dtype=np.float32)

    for column in range(region.shape[1]):
        # The lid moves most in the middle of the eye and not at all beyond its corners.
        away = (left + column - centre[0]) / (0.62 * width)
        lid, rest = upper[1] - 1 - top, lower[1] - top
        moved = lid + amount * max(0.0, math.cos(away * math.pi / 2)) ** 0.5 * (rest - lid) if abs(away) < 1 else lid
        source = np.interp(rows, [0, moved, rest + 1, len(rows) - 1], [0, lid, rest + 1, len(rows) - 1])
        below = source.astype(int).clip(0, len(rows) - 2)
        share = (source - below)[:, None]
        strip = region[:, column]
        picture[top:bottom, left + column] = strip[below] * (1 - share) + strip[below + 1] * share


def drive(picture: Image.Image, eyes: list[np.ndarray], frames: int) -> list[Image.Image]:
    """The frames of one loop of the drive; eyes as for `close_eye`, in pixels of the picture."""
    result = [picture]
    for frame in range(1, frames):
        phase = frame / frames
        pixels = np.array(picture)
        for eye in eyes:
            close_eye(pixels, eye, closing(phase))
        scale = 1 + 0.15 * math.sin(2 * math.pi * phase)
        pan_x, pan_y = 30 * math.sin(4 * math.pi * phase), 15 * math.sin(6 * math.pi * phase)
        light = 1 - 0.3 * math.sin(2 * math.pi * phase) ** 2
        width, height = picture.size
        # Output pixel (x, y) shows picture pixel (a x + c, e y + f): zoom about the middle, then pan.
        inverse = (
            1 / scale,
            0,
            width / 2 * (1 - 1 / scale) + pan_x,
            0,
            1 / scale,
            height / 2 * (1 - 1 / scale) + pan_y,
        )
        view = Image.fromarray(pixels).transform(
            picture.size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
        )
        result.append(view.point(lambda value, light=light: value * light))
    return result


def closing(phase: float) -> float:
    """How far the eyes are closed: two blinks, then a long closure in the last quarter of the drive."""
    blinks = max(math.exp(-(((phase - middle) / 0.02) ** 2)) for middle in (0.2, 0.45))
    nodding_off = 1.0 if 0.7 < phase < 0.9 else 0.0
    return max(blinks, nodding_off)
