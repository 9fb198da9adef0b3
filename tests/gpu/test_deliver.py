# SPDX-License-Identifier: Apache-2.0
"""Large outputs on the copy engine: pieces, few at once, none while real-time work is near, complete when landed."""

from collections.abc import Iterator

import numpy as np
import pytest

from reefd.gpu.program import output_steps
from tests import wait_until

from .devices import GPUS, REAL, chain, probes
from .test_conformance import RT, Bench, Request, run_to_end
from .test_fetch import BYTES, ELEMENTS, IN_FLIGHT, Copies, piece_of

pytestmark = pytest.mark.skipif(bool(REAL), reason="a card does not say what was copied when: unset REEF_TEST_GPU")


@pytest.fixture(params=GPUS)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param, chain(request.param, 3, ELEMENTS))


@pytest.fixture
def copies(bench: Bench) -> Iterator[Copies]:
    made = Copies(bench.kind, to_host=True)
    yield made
    made.take(wait=False)


def finished(bench: Bench, queue: int, *, registered: bool = True) -> Request:
    """A best-effort request whose kernels are done."""
    request = bench.request(registered=registered)
    wait_until(request.local.fetch, meanwhile=bench.device.poll)
    run_to_end(bench, request, queue)
    return request


def seen(request: Request) -> list[bytes]:
    """What lies in the request's memory now."""
    request.local.copy_out()
    return [output.tobytes() for output in request.outputs]


def test_no_kernel_writes_large_outputs(bench: Bench, copies: Copies) -> None:
    assert len(bench.model.kernels) == 3
    assert len(output_steps(16 << 10)) == 1 and output_steps((16 << 10) + 4096) == []
    request = finished(bench, 1)
    bench.device.poll()
    assert copies.take(wait=False) == []  # nothing goes before it is asked for
    assert seen(request) != bench.expected


@pytest.mark.parametrize("registered", [True, False])
def test_in_pieces_two_at_a_time_in_turns(bench: Bench, copies: Copies, registered: bool) -> None:
    queues = bench.device.info["queues"] - 1
    requests = [finished(bench, 1 + number % queues, registered=registered) for number in range(4)]
    piece = piece_of(requests[0])
    copies.take(wait=True)
    for request in requests:
        assert not request.local.deliver()
    for _ in range(5):
        bench.device.poll()
        assert not any(request.local.deliver() for request in requests)
    assert copies.take(wait=True) == [piece] * IN_FLIGHT and bench.device.copying
    copies.take(wait=False)
    for request in requests:
        wait_until(request.local.deliver, meanwhile=bench.device.poll)
        assert seen(request) == bench.expected
        assert request.local.deliver()  # and still says so
    sizes = copies.take(wait=False)
    assert sum(sizes) == len(requests) * BYTES - IN_FLIGHT * piece
    # In turns: the rests, which are smaller, all come last.
    assert sorted(sizes, reverse=True) == sizes and not bench.device.copying


def test_not_complete_before_the_last_piece_landed(bench: Bench, copies: Copies) -> None:
    request = finished(bench, 1)
    pieces = -(-BYTES // piece_of(request))
    assert not request.local.deliver()
    for _ in range(pieces // IN_FLIGHT):
        bench.device.poll()
        wait_until(lambda: not bench.device.copying)
    assert pieces % IN_FLIGHT != 0 or bench.kind == "hip"
    copies.take(wait=True)
    bench.device.poll()
    for _ in range(100):
        bench.device.poll()
        done = request.local.deliver()
        assert done == (not bench.device.copying)
    copies.take(wait=False)
    wait_until(request.local.deliver, meanwhile=bench.device.poll)
    assert seen(request) == bench.expected


def test_a_turn_is_short(bench: Bench, copies: Copies) -> None:
    """However fast pieces land, poll() issues as many as may be in flight, and returns."""
    inputs = Copies(bench.kind)
    for _ in range(20):
        request = bench.request(registered=False)
        assert not request.local.fetch()
        bench.device.poll()
        assert len(inputs.take(wait=False)) <= IN_FLIGHT
        wait_until(request.local.fetch, meanwhile=bench.device.poll)
        run_to_end(bench, request, 1)
        assert not request.local.deliver()
        bench.device.poll()
        assert len(copies.take(wait=False)) <= IN_FLIGHT
        wait_until(request.local.deliver, meanwhile=bench.device.poll)
        inputs.take(wait=False)
        copies.take(wait=False)


def test_nothing_begins_while_held(bench: Bench, copies: Copies) -> None:
    request = finished(bench, 1)
    assert not request.local.deliver()
    for _ in range(5):
        bench.device.poll(hold=True)
    assert copies.take(wait=False) == [] and not request.local.deliver() and not bench.device.copying
    wait_until(request.local.deliver, meanwhile=bench.device.poll)
    assert seen(request) == bench.expected


@pytest.mark.parametrize("registered", [True, False])
def test_dropped_in_the_middle(bench: Bench, copies: Copies, registered: bool) -> None:
    """Nothing is written to its memory once drop() said so, and its context serves the next request."""
    first, second, third = (finished(bench, 1, registered=registered) for _ in range(3))
    empty = seen(first)
    copies.take(wait=True)
    assert not any(request.local.deliver() for request in (first, second, third))
    bench.device.poll()
    assert not first.local.drop()
    assert third.local.drop()  # none of its pieces was begun
    copies.take(wait=False)
    wait_until(first.local.drop)
    before = seen(first)
    assert first.local.registered or before == empty  # a staged piece that lands goes no further
    wait_until(second.local.deliver, meanwhile=bench.device.poll)
    assert seen(second) == bench.expected
    assert seen(first) == before and seen(third) != bench.expected
    for request in (first, third):
        request.begin()
        wait_until(request.local.fetch, meanwhile=bench.device.poll)
        run_to_end(bench, request, 2)
        wait_until(request.local.deliver, meanwhile=bench.device.poll)
        assert seen(request) == bench.expected


@pytest.mark.parametrize("registered", [True, False])
def test_real_time_outputs_come_with_their_window(bench: Bench, copies: Copies, registered: bool) -> None:
    """As one copy behind the last kernel, and the window retires behind that."""
    request = bench.request(registered=registered)
    for windows in ([3], [1, 3], [1, 2, 3]):
        request.begin()
        first = 0
        for last in windows:
            request.launch(RT, 0, first=first, last=last, preemptible=False)
            first = last
        request.wait()
        assert request.local.deliver() and seen(request) == bench.expected
        assert copies.take(wait=False) == [BYTES]


def test_a_real_time_window_does_not_retire_before_its_outputs_landed(bench: Bench, copies: Copies) -> None:
    request = bench.request()
    copies.take(wait=True)
    mark = request.launch(RT, 0, preemptible=False)
    assert not bench.device.wait(RT, mark, 0.2)
    copies.take(wait=False)
    request.wait()
    assert seen(request) == bench.expected


def test_preemptible_real_time_outputs_are_not_held(bench: Bench, copies: Copies) -> None:
    """A copy behind kernels that may leave would send what they never computed, so it follows them; and goes first."""
    waiting = finished(bench, 1)
    request = bench.request()
    request.launch(RT, bench.epochs[RT])
    request.wait()
    assert request.local.kernels_done == request.kernels and copies.take(wait=False) == []
    assert not waiting.local.deliver() and not request.local.deliver()
    wait_until(request.local.deliver, meanwhile=lambda: bench.device.poll(hold=True))
    assert seen(request) == bench.expected
    assert sum(copies.take(wait=False)) == BYTES and not waiting.local.deliver()
    wait_until(waiting.local.deliver, meanwhile=bench.device.poll)
    assert seen(waiting) == bench.expected


def test_a_stale_window_sends_nothing(bench: Bench, copies: Copies) -> None:
    """Whatever was preempted, and where: nothing goes before every kernel is done, and then the right bits."""
    request = bench.request()
    wait_until(request.local.fetch, meanwhile=bench.device.poll)
    for queue in (1, RT):
        request.begin()
        wait_until(request.local.fetch, meanwhile=bench.device.poll)
        for _ in range(5):
            request.launch(queue, bench.epochs[queue])
            bench.next_epoch(queue)
            request.wait()
            assert copies.take(wait=False) == []
        run_to_end(bench, request, queue)
        wait_until(request.local.deliver, meanwhile=bench.device.poll)
        assert seen(request) == bench.expected
        copies.take(wait=False)


@pytest.mark.parametrize("kind", GPUS)
def test_preempted_in_the_very_last_kernel(kind: str) -> None:
    """Its last kernel leaves again and again, and what is sent then is what an undisturbed run has."""
    bench = Bench(kind, probes(kind, 3, 100))  # 25 KiB for each of two outputs
    assert len(bench.model.kernels) == 3
    for seed in range(10):
        outputs = bench.case.outputs()
        bench.device.run(
            bench.model, bench.case.inputs, outputs, preemptible=True, interrupt_at=[2] * 3, within_ns=60_000, seed=seed
        )
        assert [output.tobytes() for output in outputs] == bench.expected


@pytest.mark.parametrize("kind", GPUS)
def test_several_outputs(kind: str) -> None:
    bench = Bench(kind, probes(kind, 2, 100))
    counts = np.frombuffer(bench.expected[1], np.float32)
    assert len(bench.model.kernels) == 2 and (counts == 2).all()
    for queue in (1, 2):
        request = bench.request()
        run_to_end(bench, request, queue)
        assert request.result() == bench.expected
