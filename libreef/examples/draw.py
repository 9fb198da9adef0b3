# SPDX-License-Identifier: Apache-2.0
"""Draws what the two programs found."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

GREEN, YELLOW, CYAN = (90, 230, 90), (255, 210, 60), (80, 220, 255)


def box(picture: Image.Image, centre: tuple[float, float], size: tuple[float, float], label: str) -> None:
    """A labelled rectangle, in place."""
    (x, y), (width, height) = centre, size
    pen = ImageDraw.Draw(picture)
    pen.rectangle((x - width / 2, y - height / 2, x + width / 2, y + height / 2), outline=GREEN, width=2)
    caption(picture, (x - width / 2, y - height / 2 - 14), label)


def dots(picture: Image.Image, points: Iterable[Iterable[float]], colour: tuple[int, int, int], radius: float) -> None:
    """A dot for each landmark, in place."""
    pen = ImageDraw.Draw(picture)
    for x, y in np.asarray(points):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def caption(picture: Image.Image, place: tuple[float, float], text: str) -> None:
    """White on black, in place."""
    pen = ImageDraw.Draw(picture)
    pen.rectangle(pen.textbbox(place, text), fill=(0, 0, 0))
    pen.text(place, text, fill=(255, 255, 255))
