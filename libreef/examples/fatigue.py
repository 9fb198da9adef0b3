# SPDX-License-Identifier: Apache-2.0
"""fatigue: a best-effort perception process. It watches a driver's eyes, as fast as the machine allows.

    python fatigue.py PICTURE [SECONDS] [--draw FOLDER]

Three networks for each frame: a face detector, a mesh of 468 landmarks in the face, and the iris of both eyes at once.
The eye aspect ratio (EAR) of the landmarks tells open from closed; PERCLOS is the share of the last frames in which the
eyes were closed. The frames are a synthetic drive made from one picture (drive.py). Each becomes one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import draw
import face
import numpy as np
from drive import drive
from PIL import Image

from libreef import Client

TASK = "driver-fatigue"
LOOP = 60  # frames of the drive
EYES_CLOSED = 0.22  # an EAR below this
PERCLOS_WINDOW = 60  # frames
PERCLOS_DROWSY = 0.15


@dataclass(frozen=True, slots=True)
class Driver:
    """What one frame shows."""

    face: face.Face
    landmarks: np.ndarray  # 468 x 2, pixels
    eyes: tuple[np.ndarray, np.ndarray]  # right, left; 6 x 2
    irises: tuple[np.ndarray, np.ndarray]  # 5 x 2: centre and rim
    ear: tuple[float, float]


def look(client: Client, frame: Image.Image) -> Driver | None:
    """Runs the three stages on a frame. None: no face in it."""
    with client.loan("face") as loan:
        face.fill(loan.inputs["image"].array, frame.resize((face.FACE_SIZE, face.FACE_SIZE)), symmetric=True)
        outputs = loan.infer()
        found = face.best_face(outputs["boxes"].array, outputs["scores"].array, frame.size)
    if found is None:
        return None

    square = face.around_face(found)
    with client.loan("mesh") as loan:
        crop = frame.crop(square).resize((face.MESH_SIZE, face.MESH_SIZE), Image.Resampling.BILINEAR)
        face.fill(loan.inputs["image"].array, crop)
        landmarks = face.in_picture(loan.infer()["landmarks"].array, square, face.MESH_SIZE)
    eyes = landmarks[list(face.RIGHT_EYE)], landmarks[list(face.LEFT_EYE)]

    # Both eyes are submitted before either is waited for. The network knows left eyes: a right one is shown mirrored.
    with client.loan("iris") as right, client.loan("iris") as left:
        squares = [face.around_eye(eye) for eye in eyes]
        for loan, where, mirrored in zip((right, left), squares, (True, False), strict=True):
            crop = frame.crop(where).resize((face.IRIS_SIZE, face.IRIS_SIZE), Image.Resampling.BILINEAR)
            face.fill(loan.inputs["image"].array, crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop)
        answers = [loan.submit() for loan in (right, left)]
        rims = [answer.result()["iris"].array.reshape(5, 3).copy() for answer in answers]
    rims[0][:, 0] = face.IRIS_SIZE - rims[0][:, 0]
    irises = [face.in_picture(rim, where, face.IRIS_SIZE) for rim, where in zip(rims, squares, strict=True)]
    ear = face.eye_aspect_ratio(eyes[0]), face.eye_aspect_ratio(eyes[1])
    return Driver(found, landmarks, eyes, (irises[0], irises[1]), ear)


def draw_driver(frame: Image.Image, driver: Driver, text: str) -> Image.Image:
    """The face, enlarged to 512 x 512, with everything that was found in it."""
    left, top, right, bottom = square = face.around_face(driver.face)
    zoom = 512 / (right - left)
    result = frame.crop(square).resize((512, int((bottom - top) * zoom)), Image.Resampling.BICUBIC)
    draw.dots(result, (driver.landmarks - (left, top)) * zoom, draw.CYAN, 1.2)
    for eye, iris in zip(driver.eyes, driver.irises, strict=True):
        draw.dots(result, (eye - (left, top)) * zoom, draw.YELLOW, 2.5)
        draw.dots(result, (iris - (left, top)) * zoom, draw.GREEN, 2.5)
    found = driver.face
    centre, size = ((found.x - left) * zoom, (found.y - top) * zoom), (found.width * zoom, found.height * zoom)
    draw.box(result, centre, size, f"face {found.score:.2f}")
    draw.caption(result, (8, 8), text)
    return result


def main() -> None:
    """Watches the drive until the time is over or SIGTERM arrives."""
    parser = argparse.ArgumentParser(description="A best-effort perception process: watches a driver's eyes.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("seconds", type=float, nargs="?", default=10.0)
    parser.add_argument("--draw", type=Path, help="save pictures of open and closed eyes into this folder")
    options = parser.parse_args()
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)

    picture = Image.open(options.picture).convert("RGB")
    closed: deque[bool] = deque(maxlen=PERCLOS_WINDOW)
    pictures: dict[str, Image.Image] = {}
    with Client(TASK, timeout=5.0) as client:
        first = look(client, picture)
        if first is None:
            raise SystemExit(f"fatigue: there is no face in {options.picture}")
        frames = drive(picture, list(first.eyes), LOOP)
        end = time.monotonic() + options.seconds
        number = 0
        while time.monotonic() < end and not stopped:
            frame = frames[number % LOOP]
            driver = look(client, frame)
            line: dict[str, object] = {"frame": number, "time": round(time.monotonic(), 6)}
            if driver is not None:
                eyes_closed = sum(driver.ear) / 2 < EYES_CLOSED
                closed.append(eyes_closed)
                perclos = sum(closed) / len(closed)
                where = driver.face
                line |= {
                    "face": {"score": round(where.score, 4), "center": [round(where.x, 2), round(where.y, 2)]},
                    "ear": [round(ear, 3) for ear in driver.ear],
                    "perclos": round(perclos, 3),
                    "drowsy": perclos > PERCLOS_DROWSY,
                }
                name = "closed" if eyes_closed else "open"
                if options.draw and name not in pictures:
                    text = f"EAR {driver.ear[0]:.2f} {driver.ear[1]:.2f}  PERCLOS {perclos:.0%}"
                    pictures[name] = draw_driver(frame, driver, text)
            print(json.dumps(line), flush=True)
            number += 1
    for name, drawn in pictures.items():
        drawn.save(options.draw / f"fatigue-{name}.png")


if __name__ == "__main__":
    main()
