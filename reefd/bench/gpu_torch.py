# SPDX-License-Identifier: Apache-2.0
"""The peer of `reefctl bench gpu`: PyTorch with cuDNN, one CUDA graph a network. Run by an interpreter that has
PyTorch; imports nothing of reefd.

    python3 gpu_torch.py resnet50 ... > lines of JSON: network, dtype, layout, p50_us, p99_us, capture to replay's end
"""

import json
import sys
import time

import torch
import torchvision

ROUNDS = 400


def latency(network: str, dtype: torch.dtype, layout: torch.memory_format) -> list[float]:
    """Microseconds of one replay and the wait for its end."""
    extra = {"init_weights": False} if network == "inception_v3" else {}
    model = getattr(torchvision.models, network)(weights=None, **extra).cuda().eval()
    side = 299 if network == "inception_v3" else 224
    model = model.to(dtype).to(memory_format=layout)
    given = torch.randn(1, 3, side, side, device="cuda", dtype=dtype).to(memory_format=layout)
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(5):
            model(given)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            model(given)
        times = []
        for _ in range(ROUNDS + 20):
            start = time.perf_counter()
            graph.replay()
            stream.synchronize()
            times.append((time.perf_counter() - start) * 1e6)
    return sorted(times[20:])


def main() -> None:
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for network in sys.argv[1:]:
        for dtype in (torch.float16, torch.float32):
            for name, layout in (("nchw", torch.contiguous_format), ("channels_last", torch.channels_last)):
                times = latency(network, dtype, layout)
                line = {
                    "network": network,
                    "dtype": str(dtype).removeprefix("torch."),
                    "layout": name,
                    "p50_us": times[len(times) // 2],
                    "p99_us": times[int(len(times) * 0.99)],
                    "torch": torch.__version__,
                }
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
