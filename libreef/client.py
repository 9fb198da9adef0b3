# SPDX-License-Identifier: Apache-2.0
"""The client: a session with the daemon on one task.

A client is used by one thread at a time (an event loop counts as its thread); a call from another thread while one is
under way raises `WrongThread`. It belongs to the process that opened it: after `os.fork()` the child gets
`ForkedProcess`.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from libreef._reef import ffi, lib
from libreef.completions import Completions
from libreef.daemon import SLICE_NS, SocketPath, deadline_of, open_session, slice_ns
from libreef.errors import (
    SESSION_OVER,
    ClientClosed,
    ForkedProcess,
    NoFreeSlot,
    ReefError,
    StaleLoan,
    Timeout,
    WrongThread,
    error_of,
    payload_damaged,
)
from libreef.loan import IN_FLIGHT, NULL, STALE, Future, Loan
from libreef.model import Completion, ModelInfo, Stats, completion_of, models_of
from libreef.tensor import Array, Permit, Tensors, map_array


class Client:
    """A session on `task`. `socket` None: $REEF_SOCKET, else /run/reefd/reef.sock. Waits up to `timeout` seconds for a
    daemon that is not there yet (None: without end). `spin`: seconds to spin for an answer before sleeping; math.inf
    never sleeps. Without `reconnect` a daemon's death raises `DaemonGone`; with it, calls wait for its successor.

        with Client("driver-fatigue") as client:
            with client.loan("face") as loan:
                loan.inputs["image"][:] = picture
                boxes = loan.infer()["boxes"]          # zero-copy, until the loan is released
            answer = client.infer("face", image=picture)  # or copied in and out
    """

    __slots__ = (
        "__weakref__",
        "_abandoned",
        "_arrays",
        "_busy",
        "_failed",
        "_hold",
        "_iterators",
        "_landed",
        "_loop",
        "_names",
        "_pending",
        "_permits",
        "_pid",
        "_raw",
        "_session",
        "models",
        "slots",
        "task",
    )

    def __init__(
        self,
        task: str,
        *,
        socket: SocketPath | None = None,
        timeout: float | None = 10.0,
        spin: float = 0.0,
        reconnect: bool = True,
    ) -> None:
        self._session: Any = NULL
        self._busy = False
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: dict[tuple[int, int], Future[Any]] = {}
        self._landed: list[tuple[Completion, Future[Any] | None]] = []
        self._abandoned: deque[Any] = deque()
        self._iterators: list[Completions] = []
        self._failed: ReefError | None = None
        self._arrays: dict[tuple[int, int], tuple[list[Array], list[Array]]] = {}
        self._raw = ffi.new("struct reef_completion *")
        self._session = open_session(task, socket, timeout, spin, reconnect)
        self._hold = ffi.gc(lib.reef_hold(self._session), lib.reef_unhold)
        header = lib.reef_header(self._session)
        self.task = task
        self.slots = int(header.slots)
        self.models: tuple[ModelInfo, ...] = models_of(self._session)
        self._permits: list[Permit | None] = [None] * self.slots
        self._names = [
            ({info.name: i for i, info in enumerate(m.inputs)}, {info.name: i for i, info in enumerate(m.outputs)})
            for m in self.models
        ]

    # ---------------------------------------------------------------- life

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return bool(self._session == NULL)

    def close(self) -> None:
        """Ends the session: requests in flight fail with `ClientClosed`, loans become stale. Again: nothing."""
        if self._session == NULL:
            return
        self._enter()
        session, self._session = self._session, NULL
        lib.reef_close(session)
        for permit in self._permits:
            if permit is not None:
                permit[0] = STALE
        self._abandoned.clear()
        self._arrays.clear()
        self._hold = None
        self._detach()
        self._fail(ClientClosed(-errno.EINVAL, "the client was closed"))
        self._leave()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_session", NULL) != NULL and not self._busy:
            lib.reef_close(self._session)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.slots} slots, {len(self._pending)} in flight"
        return f"<Client of {self.task}: {state}>"

    # ---------------------------------------------------------------- entering C, and coming back

    def _enter(self) -> None:
        if self._busy:
            raise WrongThread(-errno.EBUSY, "another thread is inside a call of this client")
        self._busy = True

    def _leave(self) -> None:
        """The client may be called again: tells whoever waits for what was seen inside."""
        self._busy = False
        while self._landed:
            completion, future = self._landed.pop(0)
            if future is not None:
                future._notify()
            for iterator in self._iterators:
                iterator._push(completion)
        if self._loop is not None:
            # Whatever looked at the ring took the wish for a wake-up back: look again, and wish again.
            if self._loop.is_closed():
                self._loop = None
            else:
                self._loop.call_soon(self._on_readable)

    def _error(self, code: int, permit: Permit | None) -> ReefError:
        """The exception for a code that a call returned."""
        if code == -errno.EINVAL:
            if self._session == NULL:
                return ClientClosed(code, "the client was closed")
            if os.getpid() != self._pid:
                return ForkedProcess(code, "this client belongs to the process that opened it: open another after fork")
            if permit is not None and permit[0] is STALE:
                return StaleLoan(STALE.code, str(STALE))
        reason = ""
        if code in SESSION_OVER and self._session != NULL:
            reason = ffi.string(lib.reef_reason(self._session)).decode(errors="replace")
        return error_of(code, reason)

    def _failure(self, code: int, loan: Loan) -> ReefError:
        """The exception for a request that ended with this status, or for the call that should have made it."""
        if code == -errno.EILSEQ:
            return payload_damaged(self.task, self.models[loan.model].name, loan._raw)
        return self._error(code, loan._permit)

    def _over(self, code: int) -> ReefError:
        """An error of waiting. Where the session ended with it, everything in flight ends too."""
        error = self._error(code, None)
        if code in SESSION_OVER:
            self._fail(error)
        return error

    def _fail(self, error: ReefError) -> None:
        self._failed = error
        pending, self._pending = self._pending, {}
        for future in pending.values():
            future._fail(error)
            future._notify()
        for iterator in self._iterators:
            iterator._end()

    def _completion_of(self, raw: Any, loan: Loan | None) -> Completion:
        return completion_of(raw, loan)

    def _pump(self) -> int:
        """Takes every completion that is there. The code that ended it: -EAGAIN, or an error."""
        raw = self._raw
        while True:
            code: int = lib.reef_peek(self._session, raw)
            if code < 0:
                return code
            lib.reef_seen(self._session)
            future = self._pending.pop((raw.slot, raw.generation), None)
            completion = completion_of(raw, future._loan if future is not None else None)
            if future is not None:
                future._loan._raw[0] = raw[0]
                future._land(completion)
            self._landed.append((completion, future))

    def _sweep(self) -> None:
        """Releases what was dropped or abandoned and is not in flight any more."""
        for _ in range(len(self._abandoned)):
            raw = self._abandoned.popleft()
            if lib.reef_release(self._session, raw) == -errno.EBUSY:
                self._abandoned.append(raw)

    def poll(self) -> int:
        """Takes the completions that are there, without waiting; their futures are done. How many there were."""
        self._enter()
        try:
            code = self._pump()
            seen = len(self._landed)
            self._sweep()
        finally:
            self._leave()
        if code != -errno.EAGAIN and seen == 0:
            raise self._over(code)
        return seen

    def _wait_for(self, future: Future[Any], timeout: float | None) -> None:
        deadline = deadline_of(timeout)
        while not future._done:
            left = slice_ns(deadline)
            self._enter()
            try:
                code = lib.reef_wait(self._session, left, self._raw)
                if code == 0:
                    self._pump()
            finally:
                self._leave()
            if code == 0 or future._done:
                continue
            if code not in (-errno.ETIMEDOUT, -errno.EAGAIN):
                raise self._over(code)
            if left < SLICE_NS:
                raise Timeout(-errno.ETIMEDOUT, f"no answer within {timeout} s; the request goes on")

    # ---------------------------------------------------------------- requests

    def model(self, model: int | str = 0) -> ModelInfo:
        """What a model takes and gives."""
        return self.models[self._index(model)]

    def _index(self, model: int | str) -> int:
        if isinstance(model, str):
            for index, info in enumerate(self.models):
                if info.name == model:
                    return index
        elif 0 <= model < len(self.models):
            return model
        names = ", ".join(info.name for info in self.models)
        raise KeyError(f"task {self.task} has no model {model!r}; it has {names}")

    def loan(self, model: int | str = 0, *, timeout: float | None = None) -> Loan:
        """Takes a free slot. When all are in use the manifest's `queue` decides: fail raises `NoFreeSlot`; block waits
        up to `timeout` seconds for one to become free (`NoFreeSlot` where waiting cannot help, because the caller
        holds them all); latest cancels the oldest request that has not started and takes its slot."""
        index = self._index(model)
        raw = ffi.new("struct reef_loan *")
        deadline = deadline_of(timeout)
        while True:
            left = slice_ns(deadline)
            self._enter()
            try:
                self._sweep()
                code = lib.reef_loan(self._session, index, left, raw)
            finally:
                self._leave()
            if code == 0:
                return self._loaned(raw, index)
            if code in (-errno.EAGAIN, -errno.EDEADLK):
                # Completions that nobody took may free slots of requests whose loans the client holds itself.
                if self.poll() == 0:
                    raise NoFreeSlot(code, f"all {self.slots} slots of {self.task} are in use")
            elif code != -errno.ETIMEDOUT:
                raise self._over(code)
            elif left < SLICE_NS:
                raise Timeout(code, f"no slot of {self.task} became free within {timeout} s")

    def _loaned(self, raw: Any, model: int) -> Loan:
        slot = raw.slot
        arrays = self._arrays.get((slot, model))
        if arrays is None:
            arrays = self._arrays[slot, model] = self._map(raw, model)
        before = self._permits[slot]
        if before is not None:
            before[0] = STALE  # queue: latest took it over
        loan = Loan(self, raw, model, arrays, self._names[model])
        self._permits[slot] = loan._permit
        return loan

    def _map(self, raw: Any, model: int) -> tuple[list[Array], list[Array]]:
        session, info = self._session, self.models[model]
        inputs = [int(ffi.cast("uintptr_t", lib.reef_input(session, raw, i))) for i in range(len(info.inputs))]
        outputs = [int(ffi.cast("uintptr_t", lib.reef_output(session, raw, i))) for i in range(len(info.outputs))]
        return (
            [map_array(at, t.shape, t.dtype, True, self._hold) for at, t in zip(inputs, info.inputs, strict=True)],
            [map_array(at, t.shape, t.dtype, False, self._hold) for at, t in zip(outputs, info.outputs, strict=True)],
        )

    def _track(self, future: Future[Any]) -> Future[Any]:
        loan = future._loan
        if loan._permit[0] is None:
            loan._permit[0] = IN_FLIGHT
        self._pending[loan._c.slot, loan._c.generation] = future
        return future

    def submit(
        self,
        model: int | str = 0,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **named: npt.ArrayLike,
    ) -> Future[dict[str, Array]]:
        """Copies inputs into a slot and submits it; the future's result has copies of the outputs, by name. Inputs by
        name, as a mapping or as keywords. `timeout` is for the slot (see `loan`), `deadline` for the daemon, both in
        seconds."""
        loan = self.loan(model, timeout=timeout)
        try:
            given = {**(inputs or {}), **named}
            if given.keys() != set(loan.inputs):
                name = self.models[loan.model].name
                raise TypeError(f"model {name} takes {', '.join(loan.inputs)}; got {', '.join(given) or 'nothing'}")
            for name, value in given.items():
                loan.inputs[name] = np.asarray(value)
            return loan._submit(lambda done: done.outputs.copy(), deadline)
        except BaseException:
            loan._abandon()
            raise

    def infer(
        self,
        model: int | str = 0,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **named: npt.ArrayLike,
    ) -> dict[str, Array]:
        """`submit`, and wait: copies of the outputs, by name. For the path without copies see `Loan.infer`."""
        return self.submit(model, inputs, timeout=timeout, deadline=deadline, **named).result(timeout)

    __call__ = infer

    def submit_batch(self, loans: Sequence[Loan], *, deadline: float | None = None) -> list[Future[Tensors]]:
        """Submits all of them or none, with one doorbell."""
        batch = ffi.new("struct reef_loan[]", [loan._c[0] for loan in loans])
        options = ffi.new("struct reef_options[]", len(loans))
        for i, loan in enumerate(loans):
            options[i] = loan._set_options(0, 0, deadline)[0]
        self._enter()
        try:
            code = lib.reef_submit_batch(self._session, batch, options, len(loans))
        finally:
            self._leave()
        if code < 0:
            stale = next((loan._permit for loan in loans if loan._permit[0] is STALE), None)
            raise self._error(code, stale)
        for i, loan in enumerate(loans):
            loan._c[0] = batch[i]
        return [self._track(Future(self, loan, None)) for loan in loans]

    def _cancel(self, loan: Loan, timeout: float) -> bool:
        self._enter()
        try:
            code = lib.reef_cancel(self._session, loan._c, int(timeout * 1e9))
        finally:
            self._leave()
        if code in (0, -errno.EALREADY, -errno.ENOENT):
            return bool(code == 0)
        if code == -errno.EINVAL and loan._permit[0] is STALE and self._session != NULL:
            return False
        raise self._over(code)

    def announce(self) -> None:
        """The early doorbell of a real-time task: a request follows within milliseconds. Cheap, and never needed."""
        self._enter()
        try:
            code = lib.reef_announce(self._session)
        finally:
            self._leave()
        if code < 0:
            raise self._over(code)

    def stats(self) -> Stats:
        """The session's counters."""
        raw = ffi.new("struct reef_stats *")
        code = lib.reef_stats(self._session, raw)
        if code < 0:
            raise self._error(code, None)
        return Stats(*(getattr(raw, name) for name in Stats._fields))

    # ---------------------------------------------------------------- asyncio

    def completions(self) -> AsyncIterator[Completion]:
        """Every completion from now on, in order, for `async for`. Ends when the client or its session ends."""
        self._attach()
        iterator = Completions(self)
        self._iterators.append(iterator)
        return iterator

    def _waiter(self) -> asyncio.Future[None]:
        """What a coroutine awaits for its request; the loop now watches the session."""
        self._attach()
        return asyncio.get_running_loop().create_future()

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if self._failed is not None:
            raise self._failed
        if self._loop is not loop:
            self._detach()
            loop.add_reader(lib.reef_fd(self._session), self._on_readable)
            self._loop = loop
            loop.call_soon(self._on_readable)

    def _detach(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed() and self._session != NULL:
            loop.remove_reader(lib.reef_fd(self._session))

    def _on_readable(self) -> None:
        loop = self._loop
        if loop is None or self._busy:
            return
        self._busy = True
        self._loop = None  # so that _leave does not call us back
        try:
            while (code := lib.reef_arm(self._session)) == 1:
                self._pump()
            self._sweep()
        finally:
            self._leave()
            self._loop = loop
        if code < 0:
            self._detach()
            self._over(code)
        elif not self._pending and not self._iterators:
            self._detach()
