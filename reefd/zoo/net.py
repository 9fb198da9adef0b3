# SPDX-License-Identifier: Apache-2.0
"""A pencil for networks: each method adds a layer with seeded weights and returns the name of its result."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET = 17


class Net:
    """Collects nodes and weights. Shapes of feature maps are followed as far as channels; extents are ONNX's
    business."""

    def __init__(self, name: str, seed: int, weights: bool = True, batch: int = 1) -> None:
        self.name = name
        self.batch = batch
        self.parameters = 0
        self._weights = weights
        self._random = np.random.default_rng([seed, *name.encode()])
        self._nodes: list[Any] = []
        self._tensors: list[TensorProto] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._channels: dict[str, int] = {}

    # ---- the ends

    def picture(self, side: int, channels: int = 3) -> str:
        self._inputs.append(
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [self.batch, channels, side, side])
        )
        self._channels["image"] = channels
        return "image"

    def tokens(self, name: str, length: int) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, [self.batch, length]))
        return name

    def returns(self, value: str, shape: Sequence[int], name: str) -> None:
        self.node("Identity", [value], name=name)
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self) -> ModelProto:
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._tensors)
        imports = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name="reefd zoo")

    # ---- pieces

    def node(self, op: str, inputs: Sequence[str], name: str = "", channels: int = 0, **attributes: Any) -> str:
        name = name or f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        first = next((value for value in inputs if value in self._channels), "")
        if channels or first:
            self._channels[name] = channels or self._channels[first]
        return name

    def channels(self, value: str) -> int:
        return self._channels[value]

    def constant(self, array: np.ndarray, name: str = "") -> str:
        name = name or f"constant_{len(self._tensors)}"
        self._tensors.append(numpy_helper.from_array(array, name))
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.asarray(value, np.float32))

    def ints(self, *values: int) -> str:
        return self.constant(np.asarray(values, np.int64))

    def fresh(self, kind: str) -> str:
        return f"{kind}_{len(self._nodes)}"

    def weight(self, name: str, shape: Sequence[int], deviation: float, mean: float = 0.0, counted: bool = True) -> str:
        """Normally distributed values; `counted` ones are what training would change."""
        if counted:
            self.parameters += int(np.prod(shape))
        if self._weights:
            values = self._random.standard_normal(shape, np.float32)
            self.constant(values * np.float32(deviation) + np.float32(mean), name)
        return name

    # ---- layers

    def conv(
        self, x: str, outputs: int, kernel: int | tuple[int, int], stride: int = 1, pad: int | tuple[int, int] = 0,
        group: int = 1, bias: bool = True,
    ) -> str:  # fmt: skip
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = (pad, pad) if isinstance(pad, int) else pad
        name = f"conv_{len(self._nodes)}"
        inputs = self.channels(x) // group
        fan_in = inputs * size[0] * size[1]
        operands = [x, self.weight(f"{name}.w", [outputs, inputs, *size], (2 / fan_in) ** 0.5)]
        if bias:
            operands.append(self.weight(f"{name}.b", [outputs], 0.05))
        return self.node(
            "Conv",
            operands,
            name,
            outputs,
            kernel_shape=size,
            strides=[stride, stride],
            pads=[*pads, *pads],
            group=group,
        )

    def norm(self, x: str, gain: float = 1.0, epsilon: float = 1e-5) -> str:
        """Batch normalisation. `gain` below 1 at the end of a residual branch keeps deep sums bounded."""
        channels, name = self.channels(x), f"norm_{len(self._nodes)}"
        operands = [
            x,
            self.weight(f"{name}.scale", [channels], 0.1 * gain, gain),
            self.weight(f"{name}.offset", [channels], 0.1),
            self.weight(f"{name}.mean", [channels], 0.1, counted=False),
            self.constant(self._random.uniform(0.8, 1.2, channels).astype(np.float32), f"{name}.variance"),
        ]
        return self.node("BatchNormalization", operands, name, epsilon=epsilon)

    def relu(self, x: str) -> str:
        return self.node("Relu", [x])

    def pool(self, x: str, kind: str, kernel: int, stride: int, pad: int = 0, **attributes: int) -> str:
        window: dict[str, Any] = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [pad] * 4,
            **attributes,
        }
        return self.node(f"{kind}Pool", [x], **window)

    def global_pool(self, x: str) -> str:
        return self.node("GlobalAveragePool", [x])

    def concat(self, values: Sequence[str]) -> str:
        return self.node("Concat", values, channels=sum(self.channels(value) for value in values), axis=1)

    def add(self, a: str, b: str) -> str:
        return self.node("Add", [a, b])

    def flatten(self, x: str) -> str:
        return self.node("Flatten", [x], axis=1)

    def linear(self, x: str, inputs: int, outputs: int, gain: float = 2.0) -> str:
        name = f"linear_{len(self._nodes)}"
        weight = self.weight(f"{name}.w", [outputs, inputs], (gain / inputs) ** 0.5)
        bias = self.weight(f"{name}.b", [outputs], 0.05)
        return self.node("Gemm", [x, weight, bias], name, transB=1)
