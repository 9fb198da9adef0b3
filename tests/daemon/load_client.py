# SPDX-License-Identifier: Apache-2.0
"""Keeps every slot of a session busy through libreef's C calls, and keeps account of each request.

    load_client.py SOCKET TASK SEED [PATIENCE] [--rate N] [--pause S] [--requests N] [--times FILE]

It goes on until its standard input is closed, or for so many requests; then prints the account as JSON. PATIENCE:
seconds that it waits for anything at all, 60 by default. With a rate it sends one request after the other, so many a
second; with a pause (seconds, on average) it rests before it uses a slot again. FILE gets a line for each second: how
many were answered, their median and 99th percentile and the longest, in us.

Every request carries other data. Its answer is compared, to the bit, with the one expected: for an echo the bytes that
were sent, for a network what the same input gave before any daemon was killed.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections import deque
from pathlib import Path

from libreef._reef import ffi, lib

SECOND_NS = 10**9
VARIANTS = 5  # different inputs of a network
OUTAGE_NS = 20_000_000  # longer without a completion: the daemon was away


class Session:
    def __init__(self, socket: str, task: str, seed: int, patience: int = 60) -> None:
        self.patience_ns = patience * SECOND_NS
        self.keep = [ffi.new("char[]", text.encode()) for text in (socket, task)]
        params = ffi.new("struct reef_open_params *")
        params.size = ffi.sizeof("struct reef_open_params")
        params.socket, params.task, params.timeout_ns = *self.keep, self.patience_ns
        session = ffi.new("reef_session **")
        self.check(lib.reef_open(params, session))
        self.session = session[0]
        self.echo = task.startswith("echo")
        self.random = random.Random(seed)
        self.completion = ffi.new("struct reef_completion *")
        self.info = ffi.new("struct reef_tensor_info *")
        self.check(lib.reef_input_info(self.session, 0, 0, self.info))
        self.input_size = self.info.size
        slots = lib.reef_header(self.session).slots
        self.loans = [ffi.new("struct reef_loan *") for _ in range(slots)]
        for loan in self.loans:
            self.check(lib.reef_loan(self.session, 0, self.patience_ns, loan))
        self.by_slot = {loan.slot: loan for loan in self.loans}
        self.outputs = self.output_sizes()
        self.inputs = [self.network_input(variant) for variant in range(VARIANTS)]
        self.expected: dict[int, bytes] = {}  # user_data -> answer, of the requests in flight
        self.begun_ns: dict[int, int] = {}
        self.took_ns: list[int] = []
        self.references: list[bytes] = []
        self.last_ns = 0
        # (last completion before, first one after); bounded, or it would be the leak that a soak finds
        self.outages_ns: deque[tuple[int, int]] = deque(maxlen=4096)
        self.account: dict[str, object] = {
            "submitted": 0,
            "completed": 0,
            "wrong": 0,
            "twice": 0,
            "failed": 0,
            "replayed": 0,
        }

    def check(self, code: int) -> None:
        if code < 0:
            raise SystemExit(f"libreef: {ffi.string(lib.reef_strerror(code)).decode()} ({code})")

    def output_sizes(self) -> list[int]:
        sizes = []
        while lib.reef_output_info(self.session, 0, len(sizes), self.info) == 0:
            sizes.append(self.info.size)
        return sizes

    def network_input(self, variant: int) -> bytes:
        values = random.Random(variant)
        floats = ffi.new("float[]", [values.uniform(-1, 1) for _ in range(self.input_size // 4)])
        return bytes(ffi.buffer(floats))

    def output(self, loan) -> bytes:
        places = [lib.reef_output(self.session, loan, i) for i in range(len(self.outputs))]
        return b"".join(bytes(ffi.buffer(place, size)) for place, size in zip(places, self.outputs, strict=True))

    def fill(self, loan) -> bytes:
        """Puts an input in place; returns the answer that it must give."""
        variant = self.random.randrange(VARIANTS)
        data = self.random.randbytes(self.input_size) if self.echo else self.inputs[variant]
        ffi.memmove(lib.reef_input(self.session, loan, 0), data, len(data))
        return data[:8] + data[-8:] if self.echo else self.references[variant]

    def learn(self) -> None:
        """What a network gives for each input, while nothing disturbs it."""
        for data in self.inputs if not self.echo else ():
            ffi.memmove(lib.reef_input(self.session, self.loans[0], 0), data, len(data))
            self.check(lib.reef_infer(self.session, self.loans[0], ffi.NULL, self.patience_ns, self.completion))
            self.references.append(self.output(self.loans[0]))

    def submit(self, loan) -> None:
        number = self.account["submitted"] + 1
        self.expected[number] = self.fill(loan)
        self.begun_ns[number] = time.monotonic_ns()
        options = ffi.new("struct reef_options *", {"user_data": number})
        self.check(lib.reef_submit(self.session, loan, options))
        self.account["submitted"] = number

    def complete(self) -> object:
        """Waits for one completion and accounts for it; the loan that is free again."""
        self.check(lib.reef_wait(self.session, self.patience_ns, self.completion))
        done = self.completion
        loan = self.by_slot[done.slot]
        now = time.monotonic_ns()
        if self.last_ns and now - self.last_ns > OUTAGE_NS:
            self.outages_ns.append((self.last_ns, now))
        self.last_ns = now
        wanted = self.expected.pop(done.user_data, None)
        self.took_ns.append(now - self.begun_ns.pop(done.user_data, now))
        self.account["completed"] += 1
        self.account["replayed"] += bool(done.flags & 2)  # REEF_CQE_REPLAYED
        self.account["twice"] += wanted is None or done.generation != loan.generation
        self.account["failed"] += done.status != 0
        self.account["wrong"] += wanted is not None and done.status == 0 and self.output(loan) != wanted
        lib.reef_seen(self.session)
        return loan


class Times:
    """A line for each second, or none at all."""

    def __init__(self, session: Session, path: str | None) -> None:
        self.session = session
        self.file = Path(path).open("a", buffering=1) if path else None  # noqa: SIM115 as long as the process
        self.due_ns = 0

    def look(self) -> None:
        took, now = self.session.took_ns, time.monotonic_ns()
        if now < self.due_ns or not took:
            return
        self.due_ns = now + SECOND_NS
        took.sort()
        half, most = took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)]
        if self.file:
            figures = {"at_ns": now, "count": len(took), "p50_us": half / 1e3, "p99_us": most / 1e3}
            self.file.write(json.dumps(figures | {"max_us": took[-1] / 1e3}) + "\n")
        took.clear()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("task")
    parser.add_argument("seed", type=int)
    parser.add_argument("patience", type=int, nargs="?", default=60)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--requests", type=int, default=1 << 62)
    parser.add_argument("--times")
    asked = parser.parse_args()
    session = Session(asked.socket, asked.task, asked.seed, asked.patience)
    session.learn()
    print("ready", flush=True)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    times = Times(session, asked.times)
    for loan in session.loans[: 1 if asked.rate else None]:
        session.submit(loan)
    while not over.is_set() and session.account["submitted"] < asked.requests:
        loan = session.complete()
        times.look()
        if pause := asked.pause or (1 / asked.rate if asked.rate else 0):
            time.sleep(session.random.uniform(0, 2 * pause))
        session.submit(loan)
    while session.expected:
        session.complete()
    # Whatever else were to come would be a second completion of something.
    session.account["twice"] += lib.reef_wait(session.session, SECOND_NS // 10, session.completion) == 0
    session.account["outages_ns"] = list(session.outages_ns)
    print(json.dumps(session.account))
    lib.reef_close(session.session)


if __name__ == "__main__":
    main()
