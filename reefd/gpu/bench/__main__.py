# SPDX-License-Identifier: Apache-2.0
"""Tunes, checks and measures torchvision networks beside PyTorch, on the first CUDA device.

    python -m reefd.gpu.bench resnet50 --dtype float16 float32 --out DIR

Weights are random (batch norms calibrated on noise); outputs are compared with PyTorch in fp32. Times are microseconds
of one launch of a CUDA graph and the wait for its end, batch 1, median and 99th percentile, in turns with PyTorch.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from ..conv import ConvShape, Tile
from .driver import Device
from .network import Launch, Network
from .preempt import measure_preemptible
from .torch_import import read_network
from .tune import Compiler, refine, tune_shapes

_INPUT_SIZE = {"inception_v3": 299}


def _model(name: str) -> tuple[Any, Any]:
    torch.manual_seed(7)
    extra = {"init_weights": False} if name == "inception_v3" else {}
    model = getattr(torchvision.models, name)(weights=None, **extra).cuda()
    size = _INPUT_SIZE.get(name, 224)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(8, 3, size, size, device="cuda"))
    return model.eval(), torch.randn(1, 3, size, size, device="cuda")


def _torch_graphs(model: Any, x: Any, dtype: str) -> tuple[dict[str, Any], Any]:
    """Captured graphs of the network in both memory formats, and the output of one."""
    graphs = {}
    for label, layout in (("nchw", torch.contiguous_format), ("channels_last", torch.channels_last)):
        net = copy.deepcopy(model).to(getattr(torch, dtype)).to(memory_format=layout)
        given = x.to(getattr(torch, dtype)).to(memory_format=layout)
        stream = torch.cuda.Stream()
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(4):
                net(given)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                y = net(given)
        graphs[label] = (graph, stream, net, given)
    return graphs, y


def _latency(run: Callable[[], None], repeats: int) -> tuple[float, float]:
    for _ in range(10):
        run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.99)]


def _replayer(device: Device, graph: Any) -> Callable[[], None]:
    def run() -> None:
        device.replay(graph)
        device.synchronize()

    return run


def _torch_replayer(graph: Any, stream: Any) -> Callable[[], None]:
    def run() -> None:
        with torch.cuda.stream(stream):
            graph.replay()
        stream.synchronize()

    return run


def capture(device: Device, launches: list[Launch], *, overlap: bool = True) -> Any:
    with device.capture() as graph:
        for index, (kernel, pointers) in enumerate(launches):
            device.launch(kernel, pointers, overlap=overlap and index > 0)
    return graph()


def measure(
    device: Device, compiler: Compiler, name: str, dtype: str, known: dict[str, Any], arguments: argparse.Namespace
) -> dict[str, Any]:
    started = time.time()
    model, x = _model(name)
    with torch.no_grad():
        reference = model(x).float().cpu().numpy()
    network = Network(device, *read_network(model, x), dtype)
    device.upload(np.ascontiguousarray(x.cpu().numpy()), network.pointer(network.source))
    tiles: dict[ConvShape, Tile]
    tiles, report = tune_shapes(device, compiler, network, known, quick=arguments.quick)
    print(f"{name} {dtype}: {len(tiles)} shapes tuned after {time.time() - started:.1f} s", flush=True)
    compiler.load([k for k, _ in network.launches(tiles)])
    tiles = refine(device, compiler, network, tiles, report, capture)
    launches = network.launches(tiles)
    graph, serial = capture(device, launches), capture(device, launches, overlap=False)
    network.poison()
    device.replay(graph)
    device.synchronize()
    ours = network.result()
    error = float(np.abs(ours - reference).max() / np.abs(reference).max())

    torch_graphs, torch_y = _torch_graphs(model, x, dtype)
    _torch_replayer(*torch_graphs["channels_last"][:2])()
    torch_error = float(np.abs(torch_y.float().cpu().numpy() - reference).max() / np.abs(reference).max())
    runs = {"ours": _replayer(device, graph), "ours_no_overlap": _replayer(device, serial)}
    runs |= {f"torch_{k}": _torch_replayer(g, s) for k, (g, s, _, _) in torch_graphs.items()}
    times: dict[str, list[tuple[float, float]]] = {k: [] for k in runs}
    for _ in range(3):
        for key, run in runs.items():
            times[key].append(_latency(run, 200))
    result: dict[str, Any] = {
        "network": name,
        "dtype": dtype,
        "kernels": len(launches),
        "error": error,
        "torch_error": torch_error,
        **{
            k: {"p50_us": statistics.median(p for p, _ in v), "p99_us": statistics.median(p for _, p in v)}
            for k, v in times.items()
        },
        "device_us": device.time_graph(graph, 50),
    }
    best = min(result["torch_nchw"]["p50_us"], result["torch_channels_last"]["p50_us"])
    result["ratio"] = result["ours"]["p50_us"] / best
    result["preemptible"] = measure_preemptible(device, compiler, network, launches)
    result["tiles"] = [[*shape, list(tile)] for shape, tile in tiles.items()]
    line = " ".join(f"{k} {result[k]['p50_us']:.0f} ({result[k]['p99_us']:.0f})" for k in runs)
    print(f"{name} {dtype}: {line}, {time.time() - started:.1f} s", flush=True)
    print(f"   ratio {result['ratio']:.2f}, error {error:.1e} (torch {torch_error:.1e})", flush=True)
    print(f"   preemptible: {result['preemptible']['summary']}", flush=True)
    # Random weights amplify rounding: PyTorch's own distance from its fp32 says how much this network does.
    if not error < max(2 * torch_error, 1e-2 if dtype == "float16" else 1e-4):
        print(f"   WRONG: {name} {dtype} differs from PyTorch's fp32 by {error}", flush=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reefd.gpu.bench")
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--dtype", nargs="+", default=["float16", "float32"])
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--known", type=Path, help="results of an earlier run, whose tiles are tried first")
    parser.add_argument("--quick", action="store_true", help="only known tiles, and one guess where there is none")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    compiler_options = {"workers": arguments.workers}
    with Compiler(**compiler_options) as compiler:
        device = Device()
        compiler.device = device
        known = json.loads(arguments.known.read_text()) if arguments.known else {}
        results = []
        for name in arguments.networks:
            for dtype in arguments.dtype:
                results.append(measure(device, compiler, name, dtype, known, arguments))
                (arguments.out / "gpu-bench.json").write_text(
                    json.dumps({"device": device.name, "torch": torch.__version__, "results": results}, default=str)
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
