# SPDX-License-Identifier: Apache-2.0
"""Every convolution of well-known networks, layer by layer, against ONNX Runtime in the same run.

    python -m tests.kernels.bench_conv [--threads 1,2] [--isa avx512] [--networks resnet50,vgg19] [--layers]

ONNX Runtime's figure is the time of its Conv kernel alone, from its own profile: reordering into its blocked layout is
not counted. Both are the least of many runs. A layer that occurs n times counts n times in the sums.
"""

import argparse
import collections
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper, shape_inference

from tests import ROOT

from .harness import INSTRUCTION_SETS
from .test_conv2d import Case, Data, instance_of, make_data

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
FILES = {
    **{name: ROOT / f"resource/onnx/{name}.onnx" for name in ("face_detector", "face_mesh", "iris", "person_detector")},
    **{
        name: LIGHT / f"light_{name}.onnx"
        for name in ("resnet50", "vgg19", "densenet121", "squeezenet", "inception_v2")
    },
}


def convolutions(path: Path) -> Iterator[Case]:
    model = shape_inference.infer_shapes(onnx.load(path))
    values = [*model.graph.value_info, *model.graph.input]
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            x, w = shapes[node.input[0]], shapes[node.input[1]]
            given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            yield Case(
                tuple(x),
                w[0],
                tuple(w[2:]),  # type: ignore[arg-type]
                tuple(given.get("strides", (1, 1))),  # type: ignore[arg-type]
                tuple(given.get("pads", (0, 0, 0, 0))),  # type: ignore[arg-type]
                tuple(given.get("dilations", (1, 1))),  # type: ignore[arg-type]
                int(given.get("group", 1)),
                input_layout="nchw" if x[1] == 3 else "nhwc",
            )


def mobilenet_v2() -> Iterator[Case]:
    yield Case((1, 3, 224, 224), 32, (3, 3), (2, 2), (1, 1, 1, 1), input_layout="nchw")
    channels, size = 32, 112
    for expand, out, count, first_stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for index in range(count):
            stride = first_stride if index == 0 else 1
            hidden = channels * expand
            if expand > 1:
                yield Case((1, channels, size, size), hidden, (1, 1))
            yield Case((1, hidden, size, size), hidden, (3, 3), (stride, stride), (1, 1, 1, 1), group=hidden)
            size //= stride
            yield Case((1, hidden, size, size), out, (1, 1))
            channels = out
    yield Case((1, 320, 7, 7), 1280, (1, 1))


def macs(case: Case, data: Data) -> int:
    return int(np.prod(data.residual.shape[2:])) * case.x[0] * case.out * int(np.prod(data.w.shape[1:]))


def onnxruntime_time(case: Case, data: Data, threads: int, rounds: int) -> float:
    """Seconds of the Conv kernel."""
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], strides=case.strides, pads=case.pads, dilations=case.dilations,
        group=case.group, kernel_shape=case.kernel,
    )  # fmt: skip
    value = helper.make_tensor_value_info
    weights = [numpy_helper.from_array(data.w, "w"), numpy_helper.from_array(data.bias, "b")]
    graph = helper.make_graph(
        [node],
        "g",
        [value("x", onnx.TensorProto.FLOAT, case.x)],
        [value("y", onnx.TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "p")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for _ in range(rounds):
            session.run(None, {"x": data.x})
        events = json.loads(Path(session.end_profiling()).read_text())
    times = [event["dur"] for event in events if event.get("args", {}).get("op_name") == "Conv"]
    return float(min(times)) * 1e-6


def kind(case: Case) -> str:
    if case.op == "depthwise_conv2d":
        return f"depthwise {case.kernel[0]}x{case.kernel[1]}"
    if case.x[1] == 3:
        return "first"
    if case.kernel == (1, 1):
        return "1x1"
    return f"{case.kernel[0]}x{case.kernel[1]}" if case.kernel[0] == case.kernel[1] else "1xn"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--isa", default=INSTRUCTION_SETS[-1])
    parser.add_argument("--networks", default=",".join([*FILES, "mobilenet_v2"]))
    parser.add_argument("--layers", action="store_true", help="a line for each layer")
    options = parser.parse_args()
    threads = [int(count) for count in options.threads.split(",")]
    measured: dict[Case, dict[int, tuple[float, float]]] = {}
    by_kind: dict[tuple[str, int], list[float]] = collections.defaultdict(list)
    for name in options.networks.split(","):
        cases = collections.Counter(mobilenet_v2() if name == "mobilenet_v2" else convolutions(FILES[name]))
        totals = {count: [0.0, 0.0] for count in threads}
        work = 0
        for case, occurrences in cases.items():
            data = make_data(case)
            amount = macs(case, data)
            work += amount * occurrences
            if case not in measured:
                rounds = max(5, min(300, int(1.5e9 / amount)))
                instance = instance_of(case, data, options.isa)
                measured[case] = {}
                for count in threads:
                    ours = min(instance.times(rounds, threads=count))
                    theirs = onnxruntime_time(case, data, count, rounds)
                    measured[case][count] = (ours, theirs)
                    by_kind[kind(case), count].append(ours / theirs)
                if options.layers:
                    times = "  ".join(
                        f"{ours * 1e6:8.1f} {2e-9 * amount / ours:6.1f} GFLOP/s  {ours / theirs:5.2f}"
                        for ours, theirs in measured[case].values()
                    )
                    shape = f"{case.x[1]}x{case.x[2]}x{case.x[3]} -> {case.out}"
                    print(
                        f"  {kind(case):14} {shape:24} s{case.strides[0]} x{occurrences:<2} "
                        f"{instance.blocks:4} blocks  {times}",
                        flush=True,
                    )
            for count in threads:
                totals[count][0] += measured[case][count][0] * occurrences
                totals[count][1] += measured[case][count][1] * occurrences
        parts = [
            f"{count} threads {a * 1e3:8.2f} ms ({2e-9 * work / a:5.1f} GFLOP/s)  theirs {b * 1e3:8.2f}  {a / b:5.2f}"
            for count, (a, b) in totals.items()
        ]
        print(f"{name:16} " + "   ".join(parts), flush=True)
    print("\ngeometric means over distinct layers")
    for name, count in sorted(by_kind):
        ratios = by_kind[name, count]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"  {name:16} {count} threads  {mean:5.2f}  worst {max(ratios):5.2f}  of {len(ratios)}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
