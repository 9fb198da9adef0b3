# SPDX-License-Identifier: Apache-2.0
"""A client that writes garbage into its region loses its own session; everybody else is served as before."""

import errno
import mmap
import os
import random
import struct
import time

import numpy as np
import pytest

import libreef
from libreef._reef import ffi

from .test_daemon_adoption import RawSession

VERDICT = 4096 + 640  # of region D: behind the header, reef_d_hot.verdict


def serve(client: libreef.Client, value: int) -> None:
    sent = (np.arange(64) + value).astype(np.uint8)
    assert client.infer(input=sent, timeout=60)["output"].tobytes() == sent[:8].tobytes() + sent[-8:].tobytes()


class Attacker(RawSession):
    """Region C, writable, and the doorbell."""

    def __init__(self, daemon) -> None:
        super().__init__(daemon)
        self.memory = mmap.mmap(self.c, os.fstat(self.c).st_size)

    def put(self, offset: int, data: bytes) -> None:
        self.memory[offset : offset + len(data)] = data

    def submit(self, entry: bytes, tail: int = 1) -> None:
        self.put(4096, entry)
        self.put(0, struct.pack("<I", tail))
        self.ring()

    def ring(self) -> None:
        os.write(self.doorbell, struct.pack("=Q", 1))

    def verdict(self) -> int:
        return struct.unpack("<i", os.pread(self.d, 4, VERDICT))[0]

    def close(self) -> None:
        self.memory.close()
        super().close()


def entry(**fields: int) -> bytes:
    return bytes(ffi.buffer(ffi.new("struct reef_sqe *", {"generation": 1, **fields})))


def test_the_offset_is_that_of_the_header():
    hot = dict(ffi.typeof("struct reef_d_hot").fields)
    assert 4096 + hot["verdict"].offset == VERDICT


@pytest.mark.parametrize(
    "attack",
    [
        lambda a: a.submit(b"\xff" * 64),
        lambda a: a.submit(entry(), tail=0xFFFFFFFF),
        lambda a: a.submit(entry(slot=99)),
        lambda a: a.submit(entry(model=7)),
        lambda a: a.submit(entry(generation=5)),
        lambda a: a.submit(entry(sequence=3)),
        lambda a: a.submit(entry(flags=0x8000)),
        lambda a: a.submit(entry(opcode=9)),
        lambda a: a.submit(entry(reserved=1)),
        lambda a: (a.put(128, struct.pack("<I", 77)), a.submit(entry())),
    ],
    ids=["noise", "tail", "slot", "model", "generation", "sequence", "flags", "opcode", "reserved", "cq_head"],
)
def test_each_violation_costs_the_session(start, attack):
    daemon = start()
    with libreef.Client("echo", socket=daemon.socket) as honest:
        serve(honest, 1)
        attacker = Attacker(daemon)
        attack(attacker)
        daemon.wait_for(lambda: attacker.verdict() == -errno.EPROTO)
        log = daemon.wait_for_log("quarantine:")
        line = next(line for line in log.splitlines() if "quarantine:" in line)
        assert f"session={attacker.id}" in line and "code=EPROTO" in line and "uid=" in line
        serve(honest, 2)
        assert daemon.status()["events"]["quarantine"] == 1
        attacker.close()
        daemon.wait_for(lambda: len(daemon.regions()) == 2)
        serve(honest, 3)


def test_random_garbage_costs_only_those_who_write_it(start):
    daemon = start({"echo.yaml": "version: 1\ntask: echo\nclass: rt\nmodel: echo:64\nmax_sessions: 64\n"})
    chance = random.Random(5)
    with libreef.Client("echo", socket=daemon.socket) as honest:
        for round_number in range(40):
            attacker = Attacker(daemon)
            for _ in range(30):
                at = chance.choice([0, 128, 256, 384, 4096, 4160, chance.randrange(len(attacker.memory) - 64)])
                attacker.put(at, chance.randbytes(chance.choice([1, 4, 8, 64])))
                attacker.ring()
            serve(honest, round_number)
            attacker.close()
        daemon.wait_for(lambda: len(daemon.regions()) == 2)
        serve(honest, 99)
    assert "internal:" not in daemon.log()
    assert daemon.stop() == 0 and daemon.shm() == []


@pytest.mark.parametrize("size", [0, 4096, 5000])
def test_a_region_that_was_cut_short_costs_the_session(start, size):
    daemon = start()
    with libreef.Client("echo", socket=daemon.socket) as honest:
        attacker = Attacker(daemon)
        os.truncate(attacker.c, size)
        for _ in range(3):
            attacker.ring()
            serve(honest, 1)
        attacker.connection.close()
        daemon.wait_for(lambda: len(daemon.regions()) == 2)
        serve(honest, 2)
        daemon.kill()
        daemon.start()
        serve(honest, 3)


def test_a_hostile_region_is_not_adopted_into_trouble(start):
    """What a client wrote into C before the restart is met by the next daemon as it would be by this one."""
    daemon = start()
    with libreef.Client("echo", socket=daemon.socket) as honest:
        serve(honest, 1)
        attacker = Attacker(daemon)
        daemon.kill()
        attacker.put(0, b"\xff" * 4096)
        attacker.put(4096, b"\xff" * 4096)
        daemon.start()
        serve(honest, 2)
        daemon.wait_for(lambda: attacker.verdict() == -errno.EPROTO)
        attacker.close()


def test_a_flood_of_violations_does_not_fill_the_log(start):
    daemon = start({"echo.yaml": "version: 1\ntask: echo\nclass: rt\nmodel: echo:64\nmax_sessions: 64\n"})
    began = time.monotonic()
    for _ in range(120):
        daemon.wait_for(lambda: len(daemon.regions()) < 64)  # two of each session
        attacker = Attacker(daemon)
        attacker.submit(b"\xff" * 64)
        attacker.close()
    daemon.wait_for(lambda: not daemon.regions())
    assert len(daemon.log().splitlines()) < 80 + (time.monotonic() - began)  # a line a second is let through
    with libreef.Client("echo", socket=daemon.socket) as honest:
        serve(honest, 1)
