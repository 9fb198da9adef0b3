# SPDX-License-Identifier: Apache-2.0
"""The smallest client there is: writes and reads a session's two regions through the ABI header, and may misbehave."""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
import time
import weakref
from dataclasses import dataclass

from libreef._reef import ffi, lib
from reefd import _engine

CRC_TABLE = []
for _index in range(256):
    _value = _index
    for _ in range(8):
        _value = (_value >> 1) ^ (0x82F63B78 if _value & 1 else 0)
    CRC_TABLE.append(_value)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Completion:
    user_data: int
    slot: int
    generation: int
    sequence: int
    status: int
    flags: int
    preemptions: int
    accept_ns: int
    start_ns: int
    end_ns: int


class Regions:
    """C and D of one session as files in memory, with the descriptors that go with them."""

    def __init__(self, sizes: _engine.Region) -> None:
        self.c_fd = os.memfd_create("reef-test-c")
        self.d_fd = os.memfd_create("reef-test-d")
        os.ftruncate(self.c_fd, sizes.c_size)
        os.ftruncate(self.d_fd, sizes.d_size)
        self.doorbell = os.eventfd(0, os.EFD_NONBLOCK)
        self.socket, self.daemon_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # With the last client that uses them at the latest: the engine has duplicates.
        self.close = weakref.finalize(
            self, self._close, self.socket, self.daemon_socket, self.c_fd, self.d_fd, self.doorbell
        )

    def attach(
        self,
        engine: _engine.Engine,
        task: int,
        session_id: int,
        *,
        epoch: int = 1,
        adopt: bool = False,
        doorbell: bool = True,
    ) -> None:
        engine.attach(
            task=task,
            session_id=session_id,
            daemon_epoch=epoch,
            c_fd=self.c_fd,
            d_fd=self.d_fd,
            doorbell_fd=self.doorbell if doorbell else -1,
            socket_fd=self.daemon_socket.fileno(),
            adopt=adopt,
        )

    @staticmethod
    def _close(client: socket.socket, daemon: socket.socket, *descriptors: int) -> None:
        client.close()
        daemon.close()
        for descriptor in descriptors:
            os.close(descriptor)


class Client:
    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self.readable = select.poll()  # select() takes no descriptor above 1,023
        self.readable.register(regions.socket, select.POLLIN)
        self._c = mmap.mmap(regions.c_fd, 0)
        self._d = mmap.mmap(regions.d_fd, 0)
        self._c_base = ffi.from_buffer(self._c)
        self._d_base = ffi.from_buffer(self._d)
        self.header = ffi.cast("struct reef_header *", self._d_base)
        self.hot = ffi.cast("struct reef_c_hot *", self._c_base)
        self.d_hot = ffi.cast("struct reef_d_hot *", self._d_base + lib.REEF_PAGE)
        self.sq = ffi.cast("struct reef_sqe *", self._c_base + self.header.c_sq_offset)
        self.cq = ffi.cast("struct reef_cqe *", self._d_base + self.header.d_cq_offset)
        self.slots = ffi.cast("struct reef_d_slot *", self._d_base + self.header.d_slots_offset)
        self.entries = int(self.header.entries)
        self.sq_tail = int(self.hot.sq_tail)
        self.cq_head = int(self.hot.cq_head)
        self.generations = [int(self.slots[slot].generation) for slot in range(self.header.slots)]
        self._fence = threading.Lock()

    def input(self, slot: int) -> memoryview:
        at = self.header.c_inputs_offset + slot * self.header.c_inputs_stride
        return memoryview(self._c)[at : at + self.header.c_inputs_stride]

    def output(self, slot: int) -> bytes:
        at = self.header.d_outputs_offset + slot * self.header.d_outputs_stride
        return bytes(memoryview(self._d)[at : at + self.header.d_outputs_stride])

    def fence(self) -> None:
        """A locked instruction: orders what was stored before what is loaded next."""
        with self._fence:
            pass

    def ring(self) -> None:
        self.fence()
        if self.d_hot.need_wakeup:
            os.eventfd_write(self.regions.doorbell, 1)

    def write_entry(self, **fields: int) -> None:
        """Writes one entry as given and publishes it; what is not given is what an honest client would write."""
        entry = self.sq[self.sq_tail % self.entries]
        crc = fields.pop("crc", None)
        values = {
            "opcode": 0,
            "flags": 0,
            "model": 0,
            "slot": 0,
            "generation": 0,
            "sequence": self.sq_tail,
            "data_id": 0,
            "user_data": 0,
            "deadline_ns": 0,
            "reserved": 0,
            "payload_crc": 0,
        } | fields
        for name, value in values.items():
            setattr(entry, name, value)
        entry.crc = crc32c(bytes(ffi.buffer(ffi.addressof(entry))[:60])) if crc is None else crc
        self.sq_tail = (self.sq_tail + 1) & 0xFFFFFFFF

    def publish(self) -> None:
        self.hot.sq_tail = self.sq_tail
        self.ring()

    def submit(self, slot: int = 0, *, publish: bool = True, **fields: int) -> int:
        self.generations[slot] += 1
        generation = fields.pop("generation", self.generations[slot])
        self.write_entry(slot=slot, generation=generation, **fields)
        if publish:
            self.publish()
        return generation

    def cancel(self, slot: int, generation: int, timeout: float = 60.0) -> int:
        sequence = self.sq_tail
        self.write_entry(opcode=lib.REEF_OP_CANCEL, slot=slot, generation=generation)
        self.publish()
        return self.cancel_verdict(slot, sequence, timeout)

    def cancel_verdict(self, slot: int, sequence: int, timeout: float = 60.0) -> int:
        end = time.monotonic() + timeout
        while True:
            word = int(self.slots[slot].cancel_verdict)
            if word & 0xFFFFFFFF == sequence & 0xFFFFFFFF and self.d_hot.sq_head == self.sq_tail:
                verdict = word >> 32
                return verdict - (1 << 32) if verdict >= 1 << 31 else verdict
            assert time.monotonic() < end, "no verdict"
            time.sleep(0.0005)

    def announce(self) -> None:
        self.hot.announce = (self.hot.announce + 1) & 0xFFFFFFFF
        self.ring()

    def take(self) -> list[Completion]:
        """Every completion that is there, marked as consumed."""
        done = []
        while self.cq_head != self.d_hot.cq_tail:
            entry = self.cq[self.cq_head % self.entries]
            assert entry.crc == crc32c(bytes(ffi.buffer(ffi.addressof(entry))[:60]))
            assert entry.payload_crc == 0 or entry.flags & lib.REEF_CQE_PAYLOAD_CRC
            done.append(Completion(*(int(getattr(entry, name)) for name in Completion.__dataclass_fields__)))
            self.cq_head = (self.cq_head + 1) & 0xFFFFFFFF
        self.hot.cq_head = self.cq_head
        return done

    def wait(self, count: int = 1, timeout: float = 60.0) -> list[Completion]:
        """Sleeps on the session socket until `count` completions came."""
        done = self.take()
        end = time.monotonic() + timeout
        while len(done) < count:
            self.hot.cq_waiting = lib.REEF_WAIT_SOCKET
            self.fence()
            if self.d_hot.cq_tail == self.cq_head:
                left = end - time.monotonic()
                assert left > 0, f"{len(done)} of {count} completions"
                self.readable.poll(left * 1000)
            self.hot.cq_waiting = 0
            while self.readable.poll(0) and self.regions.socket.recv(1):
                pass
            done += self.take()
        return done


def echo_task(
    engine: _engine.Engine, *, task_class: str = "rt", slots: int = 4, size: int = 64, **options: object
) -> int:
    spec = _engine.TaskSpec(
        name=f"echo-{task_class}", task_class=task_class, models=[(f"echo:{size}", None)], slots=slots, **options
    )
    return engine.add_task(spec)


def open_session(engine: _engine.Engine, task: int, session_id: int = 1) -> Client:
    regions = Regions(engine.region(task))
    regions.attach(engine, task, session_id)
    return Client(regions)
