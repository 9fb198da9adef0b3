# SPDX-License-Identifier: Apache-2.0
"""What every kernel must do: compute, leave at any check point, and go on to the same bits."""

from collections.abc import Callable

import numpy as np

from reefd.gpu.instance import Kernel

from .emulator import Array, HostKernels


def relative_error(ours: Array, reference: Array) -> float:
    difference = np.abs(ours.astype(np.float64) - reference.astype(np.float64)).max()
    return float(difference / max(np.abs(reference.astype(np.float64)).max(), 1e-30))


def poison(*arrays: Array) -> None:
    """Outputs start as garbage, so that an element nobody wrote is seen."""
    for array in arrays:
        array.view(np.uint8)[...] = 0xFF


def run_all(kernels: list[Kernel], args: list[list[Array | None]], written: list[Array], most_stops: int = 12) -> None:
    """Runs the kernels plain; then preemptible; then preempted at check points spread over all of them.

    Every form must give the same bits, whatever the order of blocks. `written` are the arrays that the kernels write.
    """
    host = HostKernels(kernels)

    def everything(preemptible: bool, descending: bool = False) -> list[bytes]:
        poison(*written)
        for index in range(len(kernels)):
            host.launch(index, args[index], preemptible=preemptible, descending=descending)
        if preemptible:
            host.end()
        return [a.tobytes() for a in written]

    host.clear()
    plain = everything(False)
    assert everything(False, descending=True) == plain, "the order of blocks shows in the outputs"
    host.watch()
    assert everything(True) == plain, "the preemptible form differs from the plain one"
    loads = host.watch()
    assert host.progress[0] == len(kernels), "the window's end must publish the last kernel"
    assert (host.left != host.queue_epoch[0]).all(), "a block said that it left, and did not"
    host.resume(len(kernels), 0)
    assert everything(True) != plain, "kernels that are done must not run again"

    stops = sorted({1 + round(i * (loads - 1) / max(1, most_stops - 1)) for i in range(most_stops)})
    abandoned = 0
    for stop in stops:
        host.clear()
        poison(*written)
        host.watch(stop)
        host.progress[:] = 0
        _launch_from(host, args, 0)
        before, partly = int(host.progress[0]), [a.tobytes() for a in written]
        abandoned += before < len(kernels)
        _launch_from(host, args, before)  # under the old epoch: everything must fall through
        assert [a.tobytes() for a in written] == partly and host.progress[0] == before, "a stale window ran"
        host.watch(0)
        host.progress[:] = 0
        host.resume(before, len(kernels))
        _launch_from(host, args, before)
        assert host.progress[0] == len(kernels), f"not finished after a stop at load {stop} of {loads}"
        assert [a.tobytes() for a in written] == plain, f"other bits after a stop at load {stop} of {loads}"
    # The load after a block's last check point is the only one that may come too late.
    assert abandoned >= max(1, len(stops) // 2), "hardly any stop abandoned a block"


def _launch_from(host: HostKernels, args: list[list[Array | None]], first: int) -> None:
    for index in range(first, len(host.kernels)):
        host.launch(index, args[index], preemptible=True)
    host.end()


def seeded(seed: int) -> Callable[..., Array]:
    """normal(shape, dtype): reproducible values around zero, none of them zero."""
    generator = np.random.default_rng(seed)
    return lambda shape, dtype="float32": generator.standard_normal(shape).astype(dtype)
