# SPDX-License-Identifier: Apache-2.0
"""A network on the device: its buffers, packed weights, and the kernels that a choice of tiles gives."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conv import ConvShape, Tile, conv_kernels, pack_conv_weights
from ..elementwise import binary_kernel, unary_kernel
from ..instance import Kernel
from ..simple import depthwise_kernel, gemv_kernel, pack_depthwise_weights, pool_kernel
from .driver import Device
from .torch_import import Step, Tensor

Launch = tuple[Kernel, list[int]]
_SIZE = {"float32": 4, "float16": 2}


class Network:
    """Buffers for every feature map (none shared), so that any kernel may be run again alone."""

    def __init__(self, device: Device, steps: list[Step], source: Tensor, output: Tensor, dtype: str) -> None:
        self.device, self.steps, self.source, self.output, self.dtype = device, steps, source, output, dtype
        self.buffers: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        self.weights: list[dict[int, int]] = [self._upload(i, step) for i, step in enumerate(steps)]
        self.weight_bytes = 0

    def _element(self, tensor: Tensor) -> int:
        return 4 if tensor.root()[0] in (self.source, self.output) else _SIZE[self.dtype]

    def pointer(self, tensor: Tensor) -> int:
        root, offset = tensor.root()
        if id(root) not in self.buffers:
            size = int(np.prod(root.shape)) * self._element(root)
            self.buffers[id(root)], self.sizes[id(root)] = self.device.allocate(size), size
        return self.buffers[id(root)] + offset * self._element(root)

    def _upload(self, index: int, step: Step) -> dict[int, int]:
        arrays: dict[int, NDArray[Any]] = {}
        if step.op == "affine":
            arrays = {1: step.weight, 2: step.bias}  # type: ignore[dict-item]
        elif step.weight is not None:
            if self.is_depthwise(step):
                arrays[1] = pack_depthwise_weights(step.weight, self.dtype)
            else:
                w = step.weight if step.weight.ndim == 4 else step.weight[:, :, None, None]
                arrays[1] = pack_conv_weights(w, self.dtype)
            if step.bias is not None:
                arrays[2] = step.bias.astype(np.float32)
        return {slot: self.device.upload(np.ascontiguousarray(a)) for slot, a in arrays.items()}

    @staticmethod
    def is_depthwise(step: Step) -> bool:
        return (
            step.op == "conv"
            and step.attributes["groups"] > 1
            and step.weight is not None
            and step.weight.shape[1] == 1
        )

    def conv_shape(self, step: Step) -> ConvShape:
        """The shape that tiles are chosen for; equal shapes share their choice."""
        x, a = step.inputs[0], step.attributes
        n, h, w, c = x.shape
        o = step.output.shape[-1]
        residual = step.inputs[1] if "residual" in a else None
        extra = {k: a[k] for k in ("activation", "alpha", "beta") if k in a}
        return ConvShape(
            n,
            h,
            w,
            c // a["groups"],
            o // a["groups"],
            a["kernel"],
            a["strides"],
            a["pads"],
            a["dilations"],
            a["groups"],
            self.dtype,
            x_dtype="float32" if x is self.source else "",
            x_nchw=x is self.source,
            x_pitch=x.root()[0].shape[-1] if x.parent else 0,
            y_pitch=step.output.root()[0].shape[-1] if step.output.parent else 0,
            bias=step.bias is not None,
            residual=residual.shape[-1] if residual else 0,
            residual_pitch=residual.root()[0].shape[-1] if residual and residual.parent else 0,
            **extra,
        )

    def conv_shapes(self) -> dict[ConvShape, list[Step]]:
        shapes: dict[ConvShape, list[Step]] = {}
        for step in self.steps:
            if step.op == "conv" and not self.is_depthwise(step):
                shapes.setdefault(self.conv_shape(step), []).append(step)
        return shapes

    def launches(self, tiles: dict[ConvShape, Tile]) -> list[Launch]:
        """Every kernel of the network with its pointers, in order."""
        return [launch for index in range(len(self.steps)) for launch in self._launches_of(index, tiles)]

    def _launches_of(self, index: int, tiles: dict[ConvShape, Tile]) -> list[Launch]:
        step, weights = self.steps[index], self.weights[index]
        x, y, a = step.inputs[0], step.output, step.attributes
        extra: dict[str, Any] = {k: a[k] for k in ("activation", "alpha", "beta") if k in a}
        pitches: dict[str, Any] = {
            "x_pitch": x.root()[0].shape[-1] if x.parent else 0,
            "y_pitch": y.root()[0].shape[-1] if y.parent else 0,
        }
        px, py, w1, w2 = self.pointer(x), self.pointer(y), weights.get(1, 0), weights.get(2, 0)
        if step.op == "conv":
            shape = self.conv_shape(step)
            residual = self.pointer(step.inputs[1]) if shape.residual else 0
            pointers = [px, w1, w2, residual, 0, py, 0, 0]
            if self.is_depthwise(step):
                return [(depthwise_kernel(shape), pointers)]
            return [(kernel, pointers) for kernel in conv_kernels(shape, tiles[shape])]
        if step.op == "linear":
            m, o = y.shape
            y_dtype = "float32" if y is self.output else ""
            depth = int(np.prod(x.shape)) // m
            return [
                (
                    gemv_kernel(m, depth, o, dtype=self.dtype, y_dtype=y_dtype, bias=True, **extra),
                    [px, w1, w2, 0, 0, py, 0, 0],
                )
            ]
        if step.op == "pool":
            n, h, w, c = x.shape
            return [(pool_kernel(n, h, w, c, dtype=self.dtype, **pitches, **a), [px, py, *[0] * 6])]
        if step.op == "affine":
            rows, c = int(np.prod(x.shape[:-1])), x.shape[-1]
            kernel = unary_kernel(
                rows, c, affine=True, dtype=self.dtype, activation=extra.pop("activation", "none"), **extra, **pitches
            )
            return [(kernel, [px, w1, w2, py, 0, 0, 0, 0])]
        if step.op == "add":
            return [
                (
                    binary_kernel(x.shape, step.inputs[1].shape, function="add", dtype=self.dtype, **extra),
                    [px, self.pointer(step.inputs[1]), py, *[0] * 5],
                )
            ]
        raise NotImplementedError(step.op)

    def poison(self) -> None:
        """Fills every feature map but the input with NaN."""
        for key, pointer in self.buffers.items():
            if key != id(self.source):
                self.device.fill(pointer, self.sizes[key], 0xFF)

    def result(self) -> NDArray[np.float32]:
        out = np.empty(self.output.shape, np.float32)
        self.device.download(self.pointer(self.output), out)
        return out
