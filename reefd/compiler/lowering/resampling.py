# SPDX-License-Identifier: Apache-2.0
"""Resize in all its modes, one axis after the other: each is a matrix that is known when the model is compiled.

The two-dimensional cases of ordinary networks have a kernel of their own (windows.resize); this is for the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reefd.compiler.errors import Unsupported
from reefd.compiler.ir import Node, Value
from reefd.compiler.lowering.builder import Builder, room, static


def coordinates(node: Node) -> str:
    default = "half_pixel" if node.op == "Resize" and node.opset > 10 else "asymmetric"
    return str(node.attributes.get("coordinate_transformation_mode", default))


def scales(node: Node) -> list[float]:
    """For each axis of the input, the scale that its coordinates are computed with."""
    x, shape = node.input(0), node.output.shape
    axes = [int(axis) % x.rank for axis in node.attributes.get("axes", range(x.rank))]
    place = 1 if node.op == "Upsample" or node.opset < 11 else 2
    given = static(node, place, "scales")
    if given is None and "scales" in node.attributes:
        given = np.asarray(node.attributes["scales"], np.float32)
    found = [shape[axis] / x.shape[axis] for axis in range(x.rank)]
    if given is not None and given.size:
        for axis, scale in zip(axes, given.reshape(-1), strict=True):
            found[axis] = float(scale)
        return found
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    sizes = static(node, 3, "sizes")
    if policy != "stretch" and sizes is not None:
        ratios = [int(size) / x.shape[axis] for axis, size in zip(axes, sizes, strict=True)]
        for axis in axes:
            found[axis] = min(ratios) if policy == "not_larger" else max(ratios)
    return found


def resize(build: Builder, node: Node) -> Value:
    value, shape = node.input(0), node.output.shape
    for axis, scale in enumerate(scales(node)):
        line = _Line(node, value.shape[axis], shape[axis], scale, coordinates(node), _region(node, axis, value.rank))
        if line.unchanged():
            continue
        if line.mode == "nearest" and not line.outside().any():
            places = build.constant(line.nearest())
            extents = [shape[axis] if other == axis else extent for other, extent in enumerate(value.shape)]
            value = build.emit("gather", [value, places], extents, axis=axis)
        else:
            value = _multiply(build, value, axis, line)
    return value


def _region(node: Node, axis: int, rank: int) -> tuple[float, float]:
    """The part of an axis that tf_crop_and_resize takes, 0 to 1."""
    region = static(node, 1, "roi") if node.op == "Resize" and node.opset > 10 else None
    if region is None or not region.size:
        return 0.0, 1.0
    axes = [int(a) % rank for a in node.attributes.get("axes", range(rank))]
    if axis not in axes:
        return 0.0, 1.0
    place = axes.index(axis)
    return float(region.reshape(-1)[place]), float(region.reshape(-1)[len(axes) + place])


def _multiply(build: Builder, value: Value, axis: int, line: "_Line") -> Value:
    kind = value.dtype if value.dtype in ("float32", "float64") else "float32"
    moved = [*(other for other in range(value.rank) if other != axis), axis]
    turned = build.transpose(build.cast(value, kind), moved)
    flat = build.reshape(turned, [turned.size // line.extent, line.extent])
    outside = line.outside()
    weights = np.where(outside[:, None], 0.0, line.weights())
    scaled = build.matmul(flat, build.constant(np.ascontiguousarray(weights.T), kind))
    if outside.any():
        fill = np.where(outside, line.fill, 0.0)
        scaled = build.binary("add", scaled, build.constant(fill, kind))
    if np.dtype(value.dtype).kind in "iu":
        scaled = build.unary("round", scaled)
    back = [moved.index(other) for other in range(value.rank)]
    return build.cast(build.transpose(build.reshape(scaled, [*turned.shape[:-1], line.count]), back), value.dtype)


@dataclass(slots=True)
class _Line:
    """One axis: `count` places made from `extent`."""

    node: Node
    extent: int
    count: int
    scale: float
    transformation: str
    region: tuple[float, float]

    @property
    def mode(self) -> str:
        return str(self._take("mode", "nearest"))

    @property
    def fill(self) -> float:
        return float(self._take("extrapolation_value", 0.0))

    def _take(self, name: str, default: Any) -> Any:
        return self.node.attributes.get(name, default)

    def unchanged(self) -> bool:
        return self.extent == self.count and self.scale == 1.0 and self.transformation != "tf_crop_and_resize"

    def places(self) -> np.ndarray:
        """Where each output place lies on the input's axis."""
        room(self.count)
        x = np.arange(self.count, dtype=np.float64)
        last = self.extent - 1
        match self.transformation:
            case "half_pixel":
                return (x + 0.5) / self.scale - 0.5
            case "pytorch_half_pixel":
                return (x + 0.5) / self.scale - 0.5 if self.count > 1 else np.zeros(self.count)
            case "half_pixel_symmetric":
                adjustment = self.count / (self.scale * self.extent)
                return self.extent / 2 * (1 - adjustment) + (x + 0.5) / self.scale - 0.5
            case "align_corners":
                resized = self.scale * self.extent
                return x * last / (resized - 1) if resized != 1 else np.zeros(self.count)
            case "asymmetric":
                return x / self.scale
            case "tf_half_pixel_for_nn":
                return (x + 0.5) / self.scale
            case "tf_crop_and_resize":
                start, end = self.region
                if self.count > 1:
                    return start * last + x * (end - start) * last / (self.count - 1)
                return np.full(self.count, 0.5 * (start + end) * last)
        raise Unsupported(f"{self.transformation!r} is unknown", attribute="coordinate_transformation_mode")

    def outside(self) -> np.ndarray:
        """Which places lie off the axis and get the extrapolation value."""
        places = self.places()
        if self.transformation != "tf_crop_and_resize":
            return np.zeros(self.count, bool)
        return (places < 0) | (places > self.extent - 1)

    def nearest(self) -> np.ndarray:
        places = self.places()
        modern = self.node.op == "Resize" and self.node.opset > 10
        rounding = self._take("nearest_mode", "round_prefer_floor" if modern else "floor")
        match rounding:
            case "round_prefer_floor":
                chosen = np.ceil(places - 0.5)
            case "round_prefer_ceil":
                chosen = np.floor(places + 0.5)
            case "floor":
                chosen = np.floor(places)
            case "ceil":
                chosen = np.ceil(places)
            case _:
                raise Unsupported(f"{rounding!r} is unknown", attribute="nearest_mode")
        return np.clip(chosen, 0, self.extent - 1).astype(np.int64)

    def weights(self) -> np.ndarray:
        """[count, extent]: how much each input place gives to each output place."""
        room(max(self.count, self.extent) * self.extent)
        if self.mode == "nearest":
            return np.asarray(np.eye(self.extent)[self.nearest()])
        if self.mode not in ("linear", "cubic"):
            raise Unsupported(f"{self.mode!r} is unknown", attribute="mode", nearest="nearest, linear, cubic")
        result = np.zeros((self.count, self.extent))
        shrink = min(self.scale, 1.0) if self._take("antialias", 0) else 1.0
        reach = 1 if self.mode == "linear" else 2
        room(int(min(reach / shrink, 1e18)))
        first = int(np.floor(-reach / shrink)) + 1
        offsets = np.arange(first, 2 - first)
        for row, place in enumerate(self.places()):
            base = int(np.ceil(place)) - 1
            distances = np.abs((offsets - (place - base)) * shrink)
            shares = np.clip(1 - distances, 0, 1) if self.mode == "linear" else self._cubic(distances)
            if shrink != 1.0:
                shares = shares / shares.sum()
            taken = base + offsets
            if self._take("exclude_outside", 0):
                shares = np.where((taken < 0) | (taken >= self.extent), 0.0, shares)
                shares = shares / shares.sum()
            np.add.at(result[row], np.clip(taken, 0, self.extent - 1), shares)
        return result

    def _cubic(self, distances: np.ndarray) -> np.ndarray:
        a = float(self._take("cubic_coeff_a", -0.75))
        near = ((a + 2) * distances - (a + 3)) * distances * distances + 1
        far = ((a * distances - 5 * a) * distances + 8 * a) * distances - 4 * a
        return np.where(distances <= 1, near, np.where(distances < 2, far, 0.0))


def is_plain(node: Node, shape: Sequence[int]) -> bool:
    """Whether the kernel resize2d does exactly this: float32, spatial axes only, nearest or linear."""
    x = node.input(0)
    usual = {"antialias": 0, "exclude_outside": 0, "keep_aspect_ratio_policy": "stretch"}
    return (
        x.rank == len(shape)
        and x.rank in (3, 4)
        and x.shape[:2] == tuple(shape[:2])
        and x.dtype == "float32"
        and all(node.attributes.get(name, value) == value for name, value in usual.items())
        and node.attributes.get("mode", "nearest") in ("nearest", "linear")
        and coordinates(node) in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
        and all(abs(scale * x.shape[a] - shape[a]) < 1e-3 for a, scale in enumerate(scales(node)))
    )
