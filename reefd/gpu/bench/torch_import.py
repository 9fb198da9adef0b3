# SPDX-License-Identifier: Apache-2.0
"""Reads a torchvision network into a list of steps in our operators, batch norms folded and epilogues fused.

Only measuring needs this: what a daemon runs comes from ONNX. Feature maps are N, H, W, C; the network's input is
NCHW float, as a client writes it.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.fx
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass
class Tensor:
    """A feature map, or a channel range of a larger one (a concatenation made in place)."""

    name: str
    shape: tuple[int, ...]  # N, H, W, C, or N, C
    parent: "Tensor | None" = None
    offset: int = 0  # channels, in the parent

    def root(self) -> "tuple[Tensor, int]":
        tensor, offset = self, 0
        while tensor.parent is not None:
            tensor, offset = tensor.parent, offset + tensor.offset
        return tensor, offset


@dataclass
class Step:
    """One operator. `attributes` are those of its kernel's builder."""

    op: str  # conv, depthwise, linear, pool, affine, add, copy
    inputs: list[Tensor]
    output: Tensor
    weight: Array | None = None
    bias: Array | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


class _Reader(torch.fx.Interpreter):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.steps: list[Step] = []
        self.tensors: dict[Any, Tensor] = {}
        self.cats: list[tuple[Tensor, list[Tensor]]] = []

    def run_node(self, n: Any) -> Any:
        result = super().run_node(n)
        if n.op == "output":
            self.output = self.tensors[n.args[0]]
            return result
        if n.op == "get_attr":
            return result
        shape = tuple(result.shape)
        tensor = Tensor(n.name, (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape)
        if n.op == "placeholder":
            self.tensors[n] = tensor
            return result
        sources = [
            self.tensors[a]
            for a in (n.args[0] if isinstance(n.args[0], (list, tuple)) else n.args)
            if isinstance(a, torch.fx.Node)
        ]
        module = self.module.get_submodule(n.target) if n.op == "call_module" else None
        kind = type(module).__name__ if module is not None else getattr(n.target, "__name__", n.target)
        step = self._step(kind, module, n, sources, tensor)
        if isinstance(step, Tensor):
            self.tensors[n] = step
        else:
            self.tensors[n] = tensor
            if step is not None:
                self.steps.append(step)
        return result

    def _step(self, kind: str, module: Any, n: Any, sources: list[Tensor], out: Tensor) -> "Step | Tensor | None":
        x = sources[0]
        if kind == "Conv2d":
            pad = tuple(module.padding)
            attributes = {
                "kernel": tuple(module.kernel_size),
                "strides": tuple(module.stride),
                "pads": (*pad, *pad),
                "dilations": tuple(module.dilation),
                "groups": module.groups,
            }
            bias = None if module.bias is None else module.bias.detach().cpu().numpy()
            return Step("conv", sources, out, module.weight.detach().cpu().numpy(), bias, attributes)
        if kind == "BatchNorm2d":
            scale = (module.weight / torch.sqrt(module.running_var + module.eps)).detach().cpu().numpy()
            shift = (
                (module.bias - module.running_mean * torch.from_numpy(scale).to(module.bias.device))
                .detach()
                .cpu()
                .numpy()
            )
            return Step("affine", sources, out, scale, shift)
        if kind in ("ReLU", "relu"):
            return Step("activation", sources, out, attributes={"activation": "relu"})
        if kind == "ReLU6":
            return Step("activation", sources, out, attributes={"activation": "clip", "alpha": 0.0, "beta": 6.0})
        if kind in ("add", "iadd"):
            return Step("add", sources, out)
        if kind == "cat":
            self.cats.append((out, sources))
            return Step("cat", sources, out)
        if kind in ("Dropout", "dropout", "Identity"):
            return x
        if kind in ("flatten", "Flatten"):
            return x if x.shape[1:3] == (1, 1) or len(x.shape) == 2 else Tensor(x.name + "_flat", out.shape, x, 0)
        if kind == "Linear":
            weight = module.weight.detach().cpu().numpy()
            if x.parent is not None and x.name.endswith("_flat"):
                _, h, w, c = x.parent.shape
                weight = weight.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(weight.shape)
            return Step("linear", sources, out, weight, module.bias.detach().cpu().numpy())
        if kind in ("MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"):
            _, h, w, _ = x.shape
            if kind.lower().startswith("adaptive"):
                if out.shape[1:3] == (h, w):
                    return x
                window, stride, pad = (
                    (h // out.shape[1], w // out.shape[2]),
                    (h // out.shape[1], w // out.shape[2]),
                    (0, 0),
                )
            elif module is not None:
                window, stride, pad = _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
            else:
                given = dict(zip(("input", "kernel_size", "stride", "padding"), n.args, strict=False)) | dict(n.kwargs)
                window = _pair(given["kernel_size"])
                stride, pad = _pair(given.get("stride") or window), _pair(given.get("padding") or 0)
            maximum = "max" in kind.lower()
            return Step(
                "pool",
                sources,
                out,
                attributes={
                    "mode": "max" if maximum else "average",
                    "kernel": window,
                    "strides": stride,
                    "pads": (*pad, *pad),
                    "count_include_pad": not maximum,
                    "out_hw": out.shape[1:3],
                },
            )
        raise NotImplementedError(f"{n.name}: {kind}")


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def read_network(model: Any, x: "torch.Tensor") -> tuple[list[Step], Tensor, Tensor]:
    """The steps, the input and the output of a model in eval mode, for an input of this shape."""
    traced = torch.fx.symbolic_trace(model)
    reader = _Reader(traced)
    with torch.no_grad():
        reader.run(x)
    source = next(t for n, t in reader.tensors.items() if n.op == "placeholder")
    steps = _fuse(reader.steps, reader.output)
    _place_concatenations(steps)
    return [s for s in steps if s.op != "cat"], source, reader.output


def _fuse(steps: list[Step], output: Tensor) -> list[Step]:
    """Folds batch norms into convs, then additions and activations into what comes before them."""
    uses: dict[int, int] = {id(output): 1}
    for step in steps:
        for tensor in step.inputs:
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    maker: dict[int, int] = {}
    fused: list[Step] = []
    for step in steps:
        last = max((maker.get(id(t), -1) for t in step.inputs), default=-1)
        before = fused[last] if last >= 0 else None
        alone = before is not None and uses[id(before.output)] == 1
        plain = (
            alone and before is not None and before.op in ("conv", "linear") and "activation" not in before.attributes
        )
        if plain and before is not None and step.op == "affine" and "residual" not in before.attributes:
            assert before.weight is not None and step.weight is not None and step.bias is not None
            weight = before.weight * step.weight.reshape(-1, *[1] * (before.weight.ndim - 1))
            bias = step.bias + (0 if before.bias is None else before.bias * step.weight)
            merged = replace(before, weight=weight, bias=bias, output=step.output)
        elif plain and before is not None and step.op == "add" and "residual" not in before.attributes:
            other = next(t for t in step.inputs if t is not before.output)
            merged = replace(
                before,
                inputs=[*before.inputs, other],
                output=step.output,
                attributes={**before.attributes, "residual": other.shape[-1]},
            )
        elif (
            alone
            and before is not None
            and step.op == "activation"
            and "activation" not in before.attributes
            and before.op in ("conv", "linear", "affine", "add")
        ):
            merged = replace(before, output=step.output, attributes={**before.attributes, **step.attributes})
        else:
            maker[id(step.output)] = len(fused)
            fused.append(step)
            continue
        fused[last] = merged
        maker[id(step.output)] = last
    # A fused step may read what was made after its first part: order by when the last input exists.
    ready: list[Step] = []
    made: set[int] = {id(t) for s in fused for t in s.inputs} - {id(s.output) for s in fused}
    waiting = list(fused)
    while waiting:
        at = next(
            i
            for i, s in enumerate(waiting)
            if all(id(t) in made or (t.parent is not None and id(t.parent) in made) for t in s.inputs)
        )
        step = waiting.pop(at)
        made.add(id(step.output))
        ready.append(step)
    return ready


def _place_concatenations(steps: list[Step]) -> None:
    """Makes the inputs of a concatenation ranges of its output; a prefix of a larger one becomes a range of that."""
    cats = [s for s in steps if s.op == "cat"]
    placed: list[Step] = []
    for cat in reversed(cats):
        whole = next(
            (p for p in placed if [id(t) for t in p.inputs[: len(cat.inputs)]] == [id(t) for t in cat.inputs]), None
        )
        if whole is not None:
            cat.output.parent, cat.output.offset = whole.output, 0
            continue
        offset = 0
        for tensor in cat.inputs:
            if tensor.parent is not None:
                raise NotImplementedError(f"{tensor.name} is in two concatenations")
            tensor.parent, tensor.offset = cat.output, offset
            offset += tensor.shape[-1]
        placed.append(cat)
