# SPDX-License-Identifier: Apache-2.0
"""The products of BERT (128 tokens) and of classifiers' last layers, against ONNX Runtime in the same run.

    python -m tests.kernels.bench_matmul [--threads 1,2] [--isa avx512]

ONNX Runtime's figure is the time of its MatMul kernel, from its own profile. Both are the least of many runs.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from .harness import INSTRUCTION_SETS, Array, Instance

# a, b, whether b is constant
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool]] = {
    "bert projection": ((1, 128, 768), (768, 768), True),
    "bert up": ((1, 128, 768), (768, 3072), True),
    "bert down": ((1, 128, 3072), (3072, 768), True),
    "bert scores": ((1, 12, 128, 64), (1, 12, 64, 128), False),
    "bert values": ((1, 12, 128, 128), (1, 12, 128, 64), False),
    "resnet50 last": ((1, 2048), (2048, 1000), True),
    "vgg19 fc6": ((1, 25088), (25088, 4096), True),
    "vgg19 fc7": ((1, 4096), (4096, 4096), True),
    "square": ((1024, 1024), (1024, 1024), True),
    "square computed": ((512, 512), (512, 512), False),
}


def onnxruntime_time(a: Array, b: Array, constant: bool, threads: int, rounds: int) -> float:
    value = helper.make_tensor_value_info
    inputs = [value("a", onnx.TensorProto.FLOAT, a.shape)]
    inputs += [] if constant else [value("b", onnx.TensorProto.FLOAT, b.shape)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        "g",
        inputs,
        [value("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(b, "b")] if constant else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "p")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for _ in range(rounds):
            session.run(None, {"a": a} if constant else {"a": a, "b": b})
        events = json.loads(Path(session.end_profiling()).read_text())
    return float(min(event["dur"] for event in events if event.get("args", {}).get("op_name") == "MatMul")) * 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--isa", default=INSTRUCTION_SETS[-1])
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    for name, (a_shape, b_shape, constant) in SHAPES.items():
        a = generator.normal(size=a_shape).astype(np.float32)
        b = generator.normal(size=b_shape).astype(np.float32)
        y = np.empty((*np.broadcast_shapes(a_shape[:-2], b_shape[:-2]), a_shape[-2], b_shape[-1]), np.float32)
        instance = Instance("matmul", [a, b, y], {}, constants=[1] if constant else [], isa=options.isa)
        work = y.size * a_shape[-1]
        rounds = max(10, min(300, int(1.5e9 / work)))
        line = f"{name:16} {instance.blocks:4} blocks"
        for count in map(int, options.threads.split(",")):
            ours = min(instance.times(rounds, threads=count))
            theirs = onnxruntime_time(a, b, constant, count, rounds)
            line += f"   {count} threads {ours * 1e6:8.1f} us {2e-9 * work / ours:6.1f} GFLOP/s  {ours / theirs:5.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
