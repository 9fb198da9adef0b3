# SPDX-License-Identifier: Apache-2.0
"""The device contract (reefd/engine/device.hpp) by behaviour, the same for every device: the CPU, and the GPU code over
stand-in drivers (or a real card: REEF_TEST_GPU)."""

import ctypes
import random
import time
from collections.abc import Callable

import numpy as np
import pytest

from reefd import _engine
from tests import until_some, wait_until

from . import standin
from .devices import DEVICES, GPUS, REAL, Case, chain, open_device, probes

RT = 0


class Request:
    """A request that may be launched in windows, preempted and resumed."""

    def __init__(
        self, device: _engine.LocalDevice, case: Case, model: _engine.Model, *, registered: bool = True
    ) -> None:
        self.device, self.case, self.kernels = device, case, len(model.kernels)
        self.outputs = case.outputs()
        self.local = _engine.LocalRequest(device, model, case.inputs, self.outputs, registered=registered)
        self.mark, self.queue = 0, 0

    def begin(self) -> None:
        self.local.clear()

    def launch(
        self, queue: int, epoch: int, *, first: int = -1, last: int = -1, preemptible: bool = True, split: int = 0
    ) -> int:
        first = self.local.kernels_done if first < 0 else first
        last = self.kernels if last < 0 else last
        self.queue = queue
        self.mark = self.device.launch(queue, self.local, first, last, epoch, preemptible, split=split)
        return self.mark

    def wait(self) -> None:
        assert self.device.wait(self.queue, self.mark), "a window never retired"

    def result(self) -> list[bytes]:
        if self.local.kernels_done == self.kernels:
            wait_until(self.local.deliver, meanwhile=self.device.poll)
        self.local.copy_out()
        return [output.tobytes() for output in self.outputs]


class Bench:
    """A device with one model on it, and the bits of an undisturbed plain run."""

    def __init__(self, kind: str, case: Case) -> None:
        self.kind, self.case = kind, case
        self.device = open_device(kind)
        self.model = self.device.load(case.spec)
        outputs = case.outputs()
        self.device.run(self.model, case.inputs, outputs)
        assert all(np.isfinite(output).all() for output in outputs)
        self.expected = [output.tobytes() for output in outputs]
        self.epochs = [0] * self.device.info["queues"]

    def request(self, *, registered: bool = True) -> Request:
        request = Request(self.device, self.case, self.model, registered=registered)
        request.begin()
        return request

    def next_epoch(self, queue: int) -> int:
        self.epochs[queue] += 1
        self.device.write_epoch(queue, self.epochs[queue])
        return self.epochs[queue]


@pytest.fixture(params=DEVICES)
def bench(request: pytest.FixtureRequest) -> Bench:
    # Long enough to be interrupted: the fibers of a stand-in are slow, a card is fast.
    return Bench(
        request.param, chain(request.param, 11, 100_032 if request.param == "cpu" else 4_000_128 if REAL else 3008)
    )


@pytest.fixture(params=GPUS)
def probed(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param, probes(request.param, 7, 6))


def run_to_end(bench: Bench, request: Request, queue: int) -> None:
    """Resumes as the scheduler does: a window retired without progress is launched again."""
    for _ in range(100):
        request.launch(queue, bench.epochs[queue])
        request.wait()
        if request.local.kernels_done == request.kernels:
            return
    pytest.fail("no progress in a hundred windows")


def test_first_run_computes_what_numpy_does(bench: Bench) -> None:
    assert bench.expected == [_reference(bench.case).tobytes()] or np.allclose(
        np.frombuffer(bench.expected[0], np.float32), _reference(bench.case), rtol=1e-6
    )


def _reference(case: Case) -> np.ndarray:
    generator = np.random.default_rng(1)
    x = case.inputs[0]
    for index in range(11):
        if index % 3 == 2:
            x = (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)
        else:
            w = generator.uniform(0.5, 1.5, x.size).astype(np.float32)
            x = x * w if index % 3 else x + w
    return np.asarray(x, np.float32)


@pytest.mark.parametrize("preemptible", [False, True])
def test_kinds_of_kernel_and_windows_give_the_same_bits(bench: Bench, preemptible: bool) -> None:
    """One window, and one for each kernel, several of them in flight."""
    for step in (100, 3, 1):
        request = bench.request()
        queue = 1 if preemptible else RT
        marks = []
        for first in range(0, request.kernels, step):
            while marks and request.mark - bench.device.retired(queue) >= 6:
                time.sleep(1e-4)
            last = min(request.kernels, first + step)
            marks.append(request.launch(queue, bench.epochs[queue], first=first, last=last, preemptible=preemptible))
        request.wait()
        assert marks == list(range(marks[0], marks[0] + len(marks)))
        assert request.local.kernels_done == request.kernels
        assert request.result() == bench.expected


def test_interrupted_at_every_kernel(bench: Bench) -> None:
    def interrupt(kernels: list[int], within_ns: int) -> int:
        outputs = bench.case.outputs()
        report = bench.device.run(
            bench.model,
            bench.case.inputs,
            outputs,
            preemptible=True,
            interrupt_at=kernels,
            within_ns=within_ns,
            seed=kernels[0],
        )
        assert [output.tobytes() for output in outputs] == bench.expected
        return int(report["preempted"])

    every = list(range(len(bench.model.kernels)))
    until_some(lambda: sum(interrupt([kernel], 60_000) for kernel in every) + interrupt(every, 30_000))


def test_interrupted_at_random_instants(bench: Bench) -> None:
    def interrupt(seed: int) -> int:
        outputs = bench.case.outputs()
        report = bench.device.run(
            bench.model, bench.case.inputs, outputs, preemptible=True, interrupts=1 + seed,
            within_ns=10_000 << seed % 7, seed=seed,
        )  # fmt: skip
        assert [output.tobytes() for output in outputs] == bench.expected
        return int(report["preempted"])

    until_some(lambda: sum(map(interrupt, range(25))))


def test_a_window_of_an_old_epoch_never_runs(bench: Bench) -> None:
    old = bench.next_epoch(1)
    bench.next_epoch(1)
    request = bench.request()
    request.launch(1, old)
    request.wait()
    assert request.local.kernels_done == 0
    run_to_end(bench, request, 1)
    assert request.result() == bench.expected


def test_a_full_queue_made_stale_retires_in_order_and_loses_nothing(bench: Bench) -> None:
    depth = bench.device.info["queue_depth"]
    for _ in range(5):
        epoch = bench.next_epoch(2)
        requests = [bench.request() for _ in range(depth)]
        for request in requests:
            request.launch(2, epoch)
        bench.next_epoch(2)
        assert bench.device.wait(2, requests[-1].mark)
        assert bench.device.retired(2) == requests[-1].mark
        for request in requests:
            run_to_end(bench, request, 2)
            assert request.result() == bench.expected


def test_two_windows_of_a_request_stale_together(bench: Bench) -> None:
    generator = random.Random(3)
    for _ in range(40):
        request = bench.request()
        while request.local.kernels_done < request.kernels:
            epoch, done = bench.next_epoch(1), request.local.kernels_done
            middle = (done + request.kernels) // 2
            if middle > done:
                request.launch(1, epoch, first=done, last=middle)
            request.launch(1, epoch, first=middle)
            until = time.perf_counter() + generator.random() * 400e-6
            while time.perf_counter() < until:
                pass
            if generator.random() < 0.8:
                bench.next_epoch(1)
            request.wait()
        assert request.result() == bench.expected


# On two queues or more one call of the driver writes them; the CPU has its own way.
def test_epochs_of_several_queues_are_written_together(bench: Bench) -> None:
    for queues in (2, 3):
        stale = 0
        for _ in range(200):
            requests = [bench.request() for _ in range(queues)]
            for queue, request in enumerate(requests, 1):
                request.launch(queue, bench.next_epoch(queue))
            for queue in range(1, queues + 1):
                bench.epochs[queue] += 1
            bench.device.write_epochs([(queue, bench.epochs[queue]) for queue in range(1, queues + 1)])
            for request in requests:
                request.wait()
            stale = max(stale, sum(request.local.kernels_done < request.kernels for request in requests))
            for queue, request in enumerate(requests, 1):
                run_to_end(bench, request, queue)
                assert request.result() == bench.expected
            if stale == queues:
                break
        assert stale == queues  # every one of them was told, not the first alone


def test_plain_windows_ignore_epochs(bench: Bench) -> None:
    for _ in range(10):
        request = bench.request()
        half = request.kernels // 2
        request.launch(1, bench.epochs[1], first=0, last=half, preemptible=False)
        request.launch(1, bench.epochs[1], first=half, preemptible=False)
        bench.next_epoch(1)
        bench.next_epoch(1)
        request.wait()
        assert request.local.kernels_done == request.kernels
        assert request.result() == bench.expected


def test_plain_then_preemptible_windows_of_one_request(bench: Bench) -> None:
    for split in range(1, len(bench.model.kernels)):
        request = bench.request()
        request.launch(1, bench.epochs[1], first=0, last=split, preemptible=False)
        request.wait()
        run_to_end(bench, request, 1)
        assert request.result() == bench.expected


def test_a_context_goes_from_queue_to_queue(bench: Bench) -> None:
    request = bench.request()
    generator = random.Random(5)
    for _ in range(30):
        request.begin()
        while request.local.kernels_done < request.kernels:
            queue = generator.randrange(1, bench.device.info["queues"])
            request.launch(queue, bench.epochs[queue])
            if generator.random() < 0.7:
                time.sleep(generator.random() * 300e-6)
                bench.next_epoch(queue)
            request.wait()
        assert request.result() == bench.expected


def side_by_side(bench: Bench, rounds: int, check: Callable[[Request], None]) -> int:
    """Requests on all best-effort queues, preempted at random, and real-time ones between."""
    generator = random.Random(7)
    queues = range(1, bench.device.info["queues"])
    requests = {queue: bench.request() for queue in queues}
    real_time = bench.request()
    preempted = 0
    for _ in range(rounds):
        for queue, request in requests.items():
            if not request.mark or bench.device.retired(queue) == request.mark:
                if request.mark and request.local.kernels_done == request.kernels:
                    check(request)
                    request.begin()
                request.launch(queue, bench.epochs[queue])
        time.sleep(generator.random() * 500e-6)
        for queue in queues:
            if generator.random() < 0.7:
                preempted += requests[queue].local.kernels_done < len(bench.model.kernels)
                bench.next_epoch(queue)
        real_time.begin()
        real_time.launch(RT, 0, preemptible=False)
        real_time.wait()
        check(real_time)
    for queue, request in requests.items():
        request.wait()
        if request.local.kernels_done < request.kernels:
            run_to_end(bench, request, queue)
        check(request)
    return preempted


def test_real_time_among_preempted_queues(bench: Bench) -> None:
    def check(request: Request) -> None:
        assert request.result() == bench.expected

    assert side_by_side(bench, 60, check) > 0


def test_no_block_runs_twice_or_too_early(probed: Bench) -> None:
    """The probes count: a block that ran twice shows, and so does one that ran before its input was whole."""
    counts = np.frombuffer(probed.expected[1], np.float32)
    assert (counts == 7).all()

    def check(request: Request) -> None:
        assert request.result() == probed.expected

    assert side_by_side(probed, 60, check) > 0
    for seed in range(20):
        outputs = probed.case.outputs()
        probed.device.run(
            probed.model,
            probed.case.inputs,
            outputs,
            preemptible=True,
            interrupts=30,
            within_ns=5_000 << seed % 7,
            seed=seed,
        )
        assert [output.tobytes() for output in outputs] == probed.expected


def test_a_context_that_goes_takes_its_epoch_with_it(bench: Bench) -> None:
    """Requests that were just preempted go, and their memory with them: no late write may reach the next one's."""
    for _ in range(100):
        request = bench.request()
        request.launch(1, bench.next_epoch(1))
        bench.next_epoch(1)
        request.wait()
        del request
        assert bench.device.fault is None


@pytest.mark.parametrize("kind", GPUS)
def test_an_instance_that_never_gets_through_is_shielded(kind: str) -> None:
    """Each try ends long before a block can: without shielding no number of tries would do."""
    bench = Bench(kind, probes(kind, 2, 3, turns=60, spin=500))
    request = bench.request()
    tries, longest = 0, 0.0
    while request.local.kernels_done < request.kernels and tries < 200:
        started = time.monotonic()
        request.launch(1, bench.epochs[1])
        time.sleep(200e-6)
        bench.next_epoch(1)
        longest = max(longest, time.monotonic() - started)
        request.wait()
        tries += 1
    assert tries < 200
    # Where this thread had to wait for a processor, a try was long enough for a block.
    assert tries > 8 or longest > 1e-3
    assert request.result() == bench.expected


@pytest.mark.parametrize("kind", GPUS)
def test_a_window_is_not_retired_while_a_block_of_it_runs(kind: str) -> None:
    """Deaf blocks run on after the epoch was written; once the window retired, nothing touches its memory."""
    bench = Bench(kind, probes(kind, 3, 6, turns=3, spin=3000, deaf=True))
    generator = random.Random(11)
    for _ in range(30):
        request = bench.request()
        epoch = bench.next_epoch(1)
        request.launch(1, epoch)
        time.sleep(generator.random() * 2e-3)
        bench.next_epoch(1)
        request.wait()
        done = request.local.kernels_done
        before = request.result()
        time.sleep(2e-3)
        assert request.result() == before and request.local.kernels_done == done


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("kind", GPUS)
def test_memory_the_device_reaches_and_memory_it_does_not(kind: str, registered: bool) -> None:
    bench = Bench(kind, chain(kind, 11, 3008))
    request = bench.request(registered=registered)
    assert request.local.registered == (registered and kind == "cuda")
    for preemptible in (False, True):
        request.begin()
        request.launch(1 if preemptible else RT, bench.epochs[1], preemptible=preemptible)
        request.wait()
        assert request.result() == bench.expected


def test_windows_of_other_splits_run_in_order(bench: Bench) -> None:
    """A window with a split, then one with another or none, on the same queue: each reads what the one before wrote."""
    info = bench.device.info
    splits = [0, *range(info["split_granule"], info["split_most"] + 1, info["split_granule"])]
    assert len(splits) > 1
    generator = random.Random(13)
    for preemptible in (False, True):
        queue = 1 if preemptible else RT
        for _ in range(10):
            request = bench.request()
            first = 0
            while first < request.kernels:
                last = min(request.kernels, first + generator.randrange(1, 9))
                split = generator.choice(splits)
                request.launch(queue, bench.epochs[queue], first=first, last=last, preemptible=preemptible, split=split)
                if request.mark - bench.device.retired(queue) >= 6:
                    request.wait()
                first = last
            request.wait()
            assert request.result() == bench.expected


def test_preempted_from_split_to_split(bench: Bench) -> None:
    info = bench.device.info
    generator = random.Random(17)
    request = bench.request()
    for _ in range(10):
        request.begin()
        while request.local.kernels_done < request.kernels:
            split = generator.randrange(info["split_most"] // info["split_granule"] + 1) * info["split_granule"]
            request.launch(1, bench.epochs[1], split=split)
            if generator.random() < 0.7:
                time.sleep(generator.random() * 300e-6)
                bench.next_epoch(1)
                if bench.kind == "cpu":
                    request.wait()  # the contract: none behind a stale one of its own request
                request.launch(1, bench.epochs[1], split=0)  # a GPU: queued behind what is stale
            request.wait()
        assert request.result() == bench.expected


@pytest.mark.skipif(bool(REAL), reason="a card does not say where kernels ran: unset REEF_TEST_GPU")
@pytest.mark.parametrize("kind", GPUS)
def test_kernels_keep_to_their_part_of_the_device(kind: str) -> None:
    bench = Bench(kind, chain(kind, 11, 3008))
    library = standin.load(kind)
    library.reef_standin_grids_on.restype = ctypes.c_uint64
    units, granule = bench.device.info["compute_units"], bench.device.info["split_granule"]
    request = bench.request()
    for queue, preemptible, on in ((RT, False, units - granule), (1, True, granule), (2, True, granule)):
        request.begin()
        before = [library.reef_standin_grids_on(count) for count in range(units + 1)]
        request.launch(queue, bench.epochs[queue], preemptible=preemptible, split=granule)
        request.wait()
        after = [library.reef_standin_grids_on(count) for count in range(units + 1)]
        moved = [now - then for now, then in zip(after, before, strict=True)]
        assert moved == [request.kernels if count == on else 0 for count in range(units + 1)]


@pytest.mark.parametrize("kind", GPUS)
def test_blocks_that_may_finish_do(kind: str) -> None:
    """`wait`: a block that had begun when the epoch was written runs to its end."""
    bench = Bench(kind, probes(kind, 1, 1, turns=40, spin=500))
    request = bench.request()
    for round_number in range(100):
        request.begin()
        epoch = bench.next_epoch(1)
        mark = bench.device.launch(1, request.local, 0, request.kernels, epoch, True, finish_blocks=True)
        time.sleep(round_number * 200e-6)
        bench.next_epoch(1)
        assert bench.device.wait(1, mark)
        if request.local.kernels_done == 1:  # it had begun, and the kernel after it had not
            break
    else:
        pytest.fail("no window ended between its kernels")
    run_to_end(bench, request, 1)
    assert request.result() == bench.expected
