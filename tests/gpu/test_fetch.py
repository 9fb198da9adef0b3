# SPDX-License-Identifier: Apache-2.0
"""Best-effort inputs on the copy engine: pieces, few at once, none while real-time work is near, every byte right."""

import ctypes
import functools
import time
from collections.abc import Iterator

import pytest

from tests import wait_until

from . import standin
from .devices import GPUS, REAL, chain
from .test_conformance import RT, Bench, Request, run_to_end

pytestmark = pytest.mark.skipif(bool(REAL), reason="a card does not say what was copied when: unset REEF_TEST_GPU")
ELEMENTS = 150_528  # 602,112 bytes, whole pages: four pieces and a part of one
BYTES = 4 * ELEMENTS
IN_FLIGHT = 2
REGISTERED_PIECE, STAGED_PIECE = 128 << 10, 64 << 10


class Copies:
    """What the stand-in was asked to copy from the host, or to it."""

    def __init__(self, kind: str, *, to_host: bool = False) -> None:
        self._take = functools.partial(standin.load(kind).reef_standin_copies, to_host)
        self.take(wait=False)

    def take(self, *, wait: bool) -> list[int]:
        """Sizes since the last call, in order; later copies wait, or go on."""
        sizes = (ctypes.c_size_t * 1000)()
        return list(sizes[: self._take(sizes, len(sizes), wait)])


@pytest.fixture(params=GPUS)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param, chain(request.param, 3, ELEMENTS))


@pytest.fixture
def copies(bench: Bench) -> Iterator[Copies]:
    made = Copies(bench.kind)
    yield made
    made.take(wait=False)


def piece_of(request: Request) -> int:
    return REGISTERED_PIECE if request.local.registered else STAGED_PIECE


@pytest.mark.parametrize("registered", [True, False])
def test_a_real_time_input_waits_behind_two_pieces_at_most(bench: Bench, copies: Copies, registered: bool) -> None:
    requests = [bench.request(registered=registered) for _ in range(4)]
    real_time = bench.request(registered=registered)
    piece = piece_of(requests[0])
    copies.take(wait=True)
    for request in requests:
        assert not request.local.fetch()
    for _ in range(5):
        bench.device.poll()
    real_time.launch(RT, 0, preemptible=False)
    for _ in range(5):
        bench.device.poll()
    assert copies.take(wait=True) == [piece] * IN_FLIGHT + [BYTES]
    assert bench.device.copying
    copies.take(wait=False)
    real_time.wait()
    assert real_time.result() == bench.expected
    for request in requests:
        wait_until(request.local.fetch, meanwhile=bench.device.poll)
    assert sum(copies.take(wait=False)) == len(requests) * BYTES - IN_FLIGHT * piece
    for queue, request in enumerate(requests, 1):
        run_to_end(bench, request, min(queue, bench.device.info["queues"] - 1))
        assert request.result() == bench.expected
    assert copies.take(wait=False) == []  # nothing goes twice, nor with the window
    assert not bench.device.copying


def test_nothing_begins_while_held(bench: Bench, copies: Copies) -> None:
    request = bench.request()
    assert not request.local.fetch()
    for _ in range(5):
        bench.device.poll(hold=True)
    assert copies.take(wait=False) == [] and not request.local.fetch()
    wait_until(request.local.fetch, meanwhile=bench.device.poll)
    run_to_end(bench, request, 1)
    assert request.result() == bench.expected


def test_dropped_in_the_middle(bench: Bench, copies: Copies) -> None:
    """Its memory is free only when the pieces in flight have landed; the others go on, and its context serves again."""
    first, second, third = bench.request(), bench.request(), bench.request()
    copies.take(wait=True)
    assert not any(request.local.fetch() for request in (first, second, third))
    bench.device.poll()
    assert not first.local.drop()
    assert third.local.drop()  # none of its pieces was begun
    third.begin()
    assert not third.local.fetch()
    bench.device.poll()
    assert copies.take(wait=False) == [piece_of(first)] * IN_FLIGHT
    wait_until(first.local.drop)
    for request in (third, second):
        wait_until(request.local.fetch, meanwhile=bench.device.poll)
        run_to_end(bench, request, 1)
        assert request.result() == bench.expected
    first.begin()
    wait_until(first.local.fetch, meanwhile=bench.device.poll)
    run_to_end(bench, first, 2)
    assert first.result() == bench.expected


def test_a_small_input_does_not_wait_for_a_large_one(bench: Bench, copies: Copies) -> None:
    """Requests take turns, piece by piece: what came last is there after one piece of each other."""
    large = [bench.request() for _ in range(3)]
    elements = 8192  # 32 KiB: one piece
    model = bench.device.load(chain(bench.kind, 3, elements).spec)
    small = Request(bench.device, chain(bench.kind, 3, elements), model)
    small.begin()
    for request in (*large, small):
        assert not request.local.fetch()
    wait_until(small.local.fetch, meanwhile=bench.device.poll)
    sizes = copies.take(wait=False)
    assert sizes[:4] == [piece_of(large[0])] * 3 + [4 * elements]
    for request in large:
        wait_until(request.local.fetch, meanwhile=bench.device.poll)
        run_to_end(bench, request, 1)
        assert request.result() == bench.expected


def test_preempted_after_its_inputs_came(bench: Bench, copies: Copies) -> None:
    request = bench.request()
    wait_until(request.local.fetch, meanwhile=bench.device.poll)
    copies.take(wait=False)
    for _ in range(5):
        request.launch(1, bench.epochs[1])
        bench.next_epoch(1)
        request.wait()
    run_to_end(bench, request, 2)
    assert request.result() == bench.expected
    assert copies.take(wait=False) == []


def test_small_inputs_go_with_their_window(bench: Bench, copies: Copies) -> None:
    small = Bench(bench.kind, chain(bench.kind, 11, 3008))
    request = small.request()
    assert request.local.fetch()
    run_to_end(small, request, 1)
    assert request.result() == small.expected


@pytest.mark.parametrize("bench", ["cuda"], indirect=True)
def test_writing_epochs_is_kept_warm_while_there_is_something_to_preempt(bench: Bench, copies: Copies) -> None:
    writes = (ctypes.c_uint64 * 2).in_dll(standin.load("cuda"), "reef_standin_word_writes")

    def polled(hold: bool = False) -> list[int]:
        """The calls for one word and for several, in some time."""
        before = list(writes)
        end = time.monotonic() + 2e-3
        while time.monotonic() < end:
            bench.device.poll(hold)
        return [now - then for now, then in zip(writes, before, strict=True)]

    assert polled() == [0, 0]
    for preemptible in (True, False):
        request = bench.request()
        epoch = bench.next_epoch(1)
        copies.take(wait=True)  # so that the window stays in flight
        request.launch(1, epoch, preemptible=preemptible)
        found = [0, 0]
        for _ in range(1000 if preemptible else 1):
            found = [all_so_far + more for all_so_far, more in zip(found, polled(), strict=True)]
            if min(found) > 0:
                break
        assert found == [0, 0] if not preemptible else abs(found[0] - found[1]) <= 1 <= min(found)
        assert polled(hold=True) == [0, 0]
        copies.take(wait=False)
        request.wait()
