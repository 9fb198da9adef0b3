# SPDX-License-Identifier: Apache-2.0
"""Payload CRCs (payload_crc: in a manifest): the engine checks what it takes and what it ran, and signs its answers."""

from __future__ import annotations

import errno

import pytest

from libreef._reef import lib
from reefd import _engine

from .regions import Client, crc32c, open_session
from .simulation import Simulation

FLAG = lib.REEF_SQE_PAYLOAD_CRC
DATA = bytes(range(40, 48))


def session(sim: Simulation, task_class: str = "be", **options: object) -> Client:
    return sim.client("a", task_class, (1, 100, 20), payload_crc=True, **options)


def submit(client: Client, slot: int = 0, data: bytes = DATA) -> None:
    client.input(slot)[: len(data)] = data
    client.submit(slot, flags=FLAG, payload_crc=crc32c(data))


@pytest.mark.parametrize("task_class", ["rt", "be"])
def test_what_arrives_as_it_was_sent_is_answered(sim, task_class):
    client = session(sim, task_class)
    assert client.header.sqe_flags_required == FLAG
    submit(client)
    client.input(0)[8] ^= 1  # behind the tensor
    sim.until(1000)
    entry = client.cq[0]
    assert entry.flags == lib.REEF_CQE_PAYLOAD_CRC and entry.payload_crc == crc32c(client.output(0)[:8])
    assert [done.status for done in client.take()] == [0]
    assert sim.engine.poll_events() == [] and client.d_hot.stats.damaged == 0


def test_without_the_key_nothing_is_checked_and_nothing_said(sim):
    client = sim.client("a", "be", (1, 100, 20))
    assert client.header.sqe_flags_required == 0
    client.submit(0)
    sim.until(1000)
    assert (client.cq[0].flags, client.cq[0].payload_crc, client.cq[0].status) == (0, 0, 0)


@pytest.mark.parametrize("task_class", ["rt", "be"])
@pytest.mark.parametrize("when", ["before it is taken", "while it runs"])
def test_a_flipped_bit_of_the_input_ends_that_request(sim, when, task_class):
    client = session(sim, task_class)
    client.input(0)[:8] = DATA
    client.submit(0, flags=FLAG, payload_crc=crc32c(DATA), publish=False)
    if when == "while it runs":
        client.publish()
        sim.until(50)
        client.input(0)[7] ^= 0x80
    else:
        client.input(0)[7] ^= 0x80
        client.publish()
    sim.until(1000)
    (done,) = client.take()
    assert (done.status, done.flags) == (-errno.EILSEQ, 0)
    assert (done.start_ns != 0) == (when == "while it runs")
    (event,) = sim.engine.poll_events()
    damaged = DATA[:7] + bytes([DATA[7] ^ 0x80])
    assert (event.kind, event.code) == ("damaged", -errno.EILSEQ)
    assert f"the inputs have CRC {crc32c(damaged):08x}, the client submitted {crc32c(DATA):08x}" in event.text
    (task,) = sim.engine.snapshot()["tasks"]
    assert (task["damaged"], task["failed"], client.d_hot.stats.damaged) == (1, 1, 1)
    submit(client, 0)
    sim.until(2000)
    assert [done.status for done in client.take()] == [0]


@pytest.mark.parametrize("opcode", ["infer", "cancel"])
def test_an_entry_without_it_is_a_violation(sim, opcode):
    client = session(sim)
    if opcode == "cancel":  # names a request, carries nothing
        submit(client)
        client.write_entry(opcode=lib.REEF_OP_CANCEL, slot=0, generation=1, flags=FLAG)
        client.publish()
    else:
        client.submit(0)
    sim.until(1000)
    (event,) = sim.engine.poll_events()
    assert event.kind == "quarantine"
    assert ("requires one" if opcode == "infer" else "reserved flags") in event.text


def test_a_request_that_was_damaged_between_two_daemons_is_not_run(sim):
    client = session(sim, slots=2)
    for slot in range(2):
        submit(client, slot)
    sim.until(50)
    sim.engine.stop(grace_ns=0, keep_sessions=True)
    client.input(1)[0] ^= 1
    successor = Simulation()
    task = successor.task("a", "be", successor.model("a", (1, 100, 20)), slots=2, payload_crc=True)
    client.regions.attach(successor.engine, task, 1, epoch=2, adopt=True)
    successor.until(1000)
    assert {done.slot: done.status for done in client.take()} == {0: 0, 1: -errno.EILSEQ}
    sim.engine = successor.engine


def test_best_effort_inputs_are_checked_a_bounded_number_in_a_turn(sim):
    """200 KiB each: two a turn, whatever was submitted."""
    size = 200 * 1024
    task = sim.engine.add_task(
        _engine.TaskSpec(name="e", task_class="be", models=[(f"echo:{size}", None)], slots=16, payload_crc=True)
    )
    client = open_session(sim.engine, task)
    for slot in range(16):
        client.submit(slot, flags=FLAG, payload_crc=crc32c(bytes(size)) if slot == 0 else client.sq[0].payload_crc)
    before = sim.engine.snapshot()["turns"]
    sim.until(1)
    assert [done.status for done in client.take()] == [0] * 16
    assert sim.engine.snapshot()["turns"] - before >= 8
