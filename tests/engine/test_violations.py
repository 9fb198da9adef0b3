# SPDX-License-Identifier: Apache-2.0
"""A client that breaks a rule loses its own session, completely, and nobody else's."""

from __future__ import annotations

import errno

import pytest

from libreef._reef import lib

from .regions import Client, Regions, crc32c, echo_task, open_session


def break_tail(client: Client) -> None:
    client.hot.sq_tail = client.sq_tail + client.entries + 1
    client.ring()


def break_head(client: Client) -> None:
    client.hot.cq_head = client.d_hot.cq_tail + 1
    client.submit(3)


def twice(client: Client) -> None:
    client.submit(3)
    client.submit(3)


def unconsumed(client: Client) -> None:
    client.submit(0)  # its last completion was posted, and cq_head does not say that it was taken


VIOLATIONS = {
    "sq_tail runs ahead": (break_tail, "sq_tail"),
    "cq_head runs ahead": (break_head, "cq_head"),
    "opcode": (lambda client: client.submit(3, opcode=7), "opcode"),
    "flags": (lambda client: client.submit(3, flags=1 << 7), "flags"),
    "flags of a cancel": (
        lambda client: client.submit(3, opcode=lib.REEF_OP_CANCEL, flags=lib.REEF_SQE_LATEST),
        "flags",
    ),
    "reserved": (lambda client: client.submit(3, reserved=1), "reserved"),
    "payload_crc without its flag": (lambda client: client.submit(3, payload_crc=1), "reserved"),
    "payload_crc unasked": (
        lambda client: client.submit(3, flags=lib.REEF_SQE_PAYLOAD_CRC),
        "a CRC of its inputs, and the task wants none",
    ),
    "sequence": (lambda client: client.submit(3, sequence=client.sq_tail + 1), "sequence"),
    "crc": (lambda client: client.submit(3, flags=lib.REEF_SQE_CRC, crc=12345), "CRC is wrong"),
    "slot": (lambda client: client.write_entry(slot=4, generation=1) or client.publish(), "slot 4 of 4"),
    "slot of a cancel": (
        lambda client: client.write_entry(opcode=lib.REEF_OP_CANCEL, slot=1 << 31) or client.publish(),
        "slot",
    ),
    "model": (lambda client: client.submit(3, model=2), "model 2 of 2"),
    "generation": (lambda client: client.submit(3, generation=2), "generation 2, expected 1"),
    "generation again": (lambda client: client.submit(3, generation=0), "generation 0, expected 1"),
    "in flight": (twice, "slot 3 has a request in flight"),
    "completion not consumed": (unconsumed, "not consumed"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_quarantines_its_session_alone(sim, name):
    violate, text = VIOLATIONS[name]
    task = sim.task("be", "be", sim.model("a", (4, 100, 20), (4, 100, 20)), sim.model("quick", (1, 1, 1)), slots=4)
    bad, good = sim.session(task), sim.session(task)
    bad.submit(0, model=1)
    sim.until(50)
    assert bad.d_hot.cq_tail == 1
    running = bad.submit(1)
    queued = bad.submit(2)
    good.submit(0)
    sim.until(100)
    violate(bad)
    sim.until(2000)

    (event,) = [event for event in sim.engine.poll_events() if event.kind == "quarantine"]
    assert (event.session, event.task, event.code) == (1, task, -errno.EPROTO)
    assert text in event.text
    assert bad.d_hot.verdict == -errno.EPROTO
    bad.cq_head = 1
    bad.hot.cq_head = 1
    done = {d.generation if d.slot != 3 else None: d.status for d in bad.take() if d.slot in (1, 2)}
    assert set(done.values()) == {-errno.EPROTO} and {running, queued} == {1}
    assert bad.d_hot.cq_tail == (4 if name == "in flight" else 3)  # everything accepted completed, exactly once

    # It is not listened to any more; the other session lives.
    bad.submit(0, generation=2)
    good.submit(1)
    sim.until(4000)
    assert bad.take() == []
    assert [d.status for d in good.take()] == [0, 0]
    sim.engine.detach(session_id=1, code=-errno.EPROTO)
    sim.until(4001)
    assert [event.kind for event in sim.engine.poll_events()] == ["detached"]


def test_a_required_crc_is_required_and_checked(sim):
    task = echo_task(sim.engine, crc=True)
    good, bad = open_session(sim.engine, task, 1), open_session(sim.engine, task, 2)
    assert good.header.sqe_flags_required == lib.REEF_SQE_CRC
    good.submit(0, flags=lib.REEF_SQE_CRC)
    bad.submit(0)
    sim.until(10)
    assert [d.status for d in good.take()] == [0]
    assert bad.take() == [] and bad.d_hot.verdict == -errno.EPROTO
    (event,) = sim.engine.poll_events()
    assert "requires one" in event.text


def test_the_crc_is_castagnoli(sim):
    assert crc32c(b"123456789") == 0xE3069283


def test_entries_are_copied_before_they_are_checked(sim):
    """What the client writes into an entry after it was taken changes nothing."""
    client = sim.client("be", "be", (4, 100, 20), (4, 100, 20))
    client.submit(0, user_data=5)
    sim.until(50)
    entry = client.sq[0]
    entry.user_data, entry.slot, entry.generation, entry.model = 6, 9, 9, 9
    sim.until(1000)
    (done,) = client.take()
    assert (done.user_data, done.slot, done.generation, done.status) == (5, 0, 1, 0)


@pytest.mark.parametrize("doorbell", [True, False], ids=["ringing", "looked at by timer"])
def test_what_best_effort_clients_can_make_one_turn_do_is_bounded(sim, doorbell):
    """A flood that fills rings of 512 entries is taken a few at a time, and all of it; real-time rings come first."""
    task = sim.task("be", "be", sim.model("quick", (1, 1, 1)), slots=256)
    clients = []
    for number in range(1, 7):
        regions = Regions(sim.engine.region(task))
        regions.attach(sim.engine, task, number, doorbell=doorbell)
        clients.append(Client(regions))
    sim.until(10_000)
    for client in clients:
        for _ in range(client.entries):
            client.write_entry(opcode=lib.REEF_OP_CANCEL, slot=1, generation=7)
        client.publish()
    sim.until(1_000_000)
    assert all(client.d_hot.sq_head == client.entries for client in clients)
    assert 64 <= sim.engine.snapshot()["most_taken"] <= 128
