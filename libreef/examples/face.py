# SPDX-License-Identifier: Apache-2.0
"""What the three networks of the fatigue detector want and say: crops, anchors, landmarks, eye aspect ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

FACE_SIZE, MESH_SIZE, IRIS_SIZE = 128, 192, 64

# Landmarks of the mesh around an eye: outer corner, upper lid twice, inner corner, lower lid twice.
RIGHT_EYE = (33, 160, 158, 133, 153, 144)
LEFT_EYE = (362, 385, 387, 263, 373, 380)


@dataclass(frozen=True, slots=True)
class Face:
    """Centre and size in pixels of the picture."""

    score: float
    x: float
    y: float
    width: float
    height: float


def fill(tensor: np.ndarray, picture: Image.Image, *, symmetric: bool = False) -> None:
    """Writes an RGB picture into a 1 x 3 x H x W float32 tensor, scaled to 0..1, or to -1..1 where symmetric."""
    pixels = np.asarray(picture).transpose(2, 0, 1)
    np.multiply(pixels, 1 / 127.5 if symmetric else 1 / 255, out=tensor[0], casting="unsafe")
    if symmetric:
        tensor -= 1


def _grid(cells: int, anchors: int) -> np.ndarray:
    centres = (np.arange(cells) + 0.5) / cells
    x, y = np.meshgrid(centres, centres)
    return np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), anchors, axis=0)


# The detector looks through two grids: 16 x 16 cells with two anchors each, 8 x 8 with six.
_ANCHORS = np.concatenate([_grid(16, 2), _grid(8, 6)])


def best_face(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> Face | None:
    """The surest face with a score above 0.5. boxes: 1 x 896 x 16, scores: 1 x 896 x 1 logits; size: the picture's."""
    best = int(scores.argmax())
    logit = float(scores[0, best, 0])
    if logit <= 0:
        return None
    (x, y), (width, height) = _ANCHORS[best] + boxes[0, best, :2] / FACE_SIZE, boxes[0, best, 2:4] / FACE_SIZE
    return Face(1 / (1 + float(np.exp(-logit))), x * size[0], y * size[1], width * size[0], height * size[1])


Square = tuple[int, int, int, int]  # left, top, right, bottom


def around_face(face: Face) -> Square:
    """Where the mesh looks: a square half as large again as the face."""
    half = 0.75 * max(face.width, face.height)
    return int(face.x - half), int(face.y - half), int(face.x + half), int(face.y + half)


def around_eye(eye: np.ndarray) -> Square:
    """Where the iris network looks: a square a little over twice as wide as the eye."""
    (x, y), half = eye[[0, 3]].mean(axis=0), 1.15 * float(np.linalg.norm(eye[3] - eye[0]))
    return int(x - half), int(y - half), int(x + half), int(y + half)


def in_picture(points: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Landmarks (n x 3, pixels of a crop of `size`) as n x 2 pixels of the picture."""
    left, top, right, _ = square
    return points.reshape(-1, 3)[:, :2] * ((right - left) / size) + (left, top)


def eye_aspect_ratio(eye: np.ndarray) -> float:
    """Height over width of an eye (6 x 2): about 0.3 when open, under 0.2 when closed."""
    first, second, width = (np.linalg.norm(eye[a] - eye[b]) for a, b in ((1, 5), (2, 4), (0, 3)))
    return float((first + second) / (2 * width))
