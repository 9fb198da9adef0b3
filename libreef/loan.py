# SPDX-License-Identifier: Apache-2.0
"""A loan is a slot in your hands; a future is its request in flight."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from libreef._reef import ffi, lib
from libreef.daemon import SLICE_NS
from libreef.errors import Cancelled, InFlight, ReefError, StaleLoan, WrongThread
from libreef.model import Completion
from libreef.tensor import Array, Permit, Tensor, Tensors

if TYPE_CHECKING:
    import asyncio

    from libreef.client import Client

T = TypeVar("T")

NULL = ffi.NULL

IN_FLIGHT = InFlight(-errno.EBUSY, "the loan's request is in flight: wait for its result first")
STALE = StaleLoan(-errno.EINVAL, "the loan was released: its tensors are no longer yours")

_infer = lib.reef_infer


class Loan:
    """A slot for one request of one model, from `Client.loan()`. Fill `inputs`, `infer()` or `submit()`, read
    `outputs`, do it again or `release()`. As a context manager it releases at the end.

    `inputs` and `outputs` are the slot's tensors in shared memory: nothing is copied. They may be used while the loan
    is held and not in flight; otherwise they raise `StaleLoan` or `InFlight`."""

    __slots__ = ("_c", "_client", "_options", "_permit", "_raw", "inputs", "model", "outputs")

    def __init__(
        self,
        client: Client,
        raw: Any,
        model: int,
        arrays: tuple[Sequence[Array], Sequence[Array]],
        names: tuple[dict[str, int], dict[str, int]],
    ) -> None:
        permit: Permit = [None]
        self._client = client
        self._c = raw
        self._permit = permit
        self._raw = ffi.new("struct reef_completion *")
        self._options = ffi.new("struct reef_options *")
        self.model = model
        self.inputs = Tensors(names[0], tuple([Tensor(array, permit) for array in arrays[0]]))
        self.outputs = Tensors(names[1], tuple([Tensor(array, permit) for array in arrays[1]]))

    @property
    def slot(self) -> int:
        """The slot's number."""
        return int(self._c.slot)

    @property
    def held(self) -> bool:
        """False once it was released or its slot was given to a newer request."""
        return self._permit[0] is not STALE

    @property
    def completion(self) -> Completion:
        """How the loan's last request ended: times, preemptions."""
        return self._client._completion_of(self._raw, self)

    def infer(self, *, timeout: float | None = None, deadline: float | None = None) -> Tensors:
        """Submits and waits for the answer: the outputs. Both times are seconds from now; `timeout` ends the waiting
        (`Timeout`; the request goes on), `deadline` is the daemon's (`DeadlineExceeded`; None: the task's own)."""
        client = self._client
        if client._busy:
            raise WrongThread(-errno.EBUSY, "another thread is inside a call of this client")
        client._busy = True
        try:
            code = _infer(
                client._session,
                self._c,
                NULL if deadline is None else self._set_options(0, 0, deadline),
                SLICE_NS if timeout is None else min(int(timeout * 1e9) + 1, SLICE_NS),
                self._raw,
            )
        finally:
            client._busy = False
        if code == 0 and client._loop is None:
            return self.outputs
        return self._after_infer(code, timeout)

    def _after_infer(self, code: int, timeout: float | None) -> Tensors:
        self._client._leave()
        if code == 0:
            return self.outputs
        if code != -errno.ETIMEDOUT:
            raise self._client._failure(code, self)
        future = self._client._track(Future(self._client, self, None))
        future.result(None if timeout is None else max(timeout - SLICE_NS / 1e9, 0))
        return self.outputs

    def _set_options(self, user_data: int, data_id: int, deadline: float | None) -> Any:
        options = self._options
        options.user_data = user_data
        options.data_id = data_id
        options.deadline_ns = 0 if deadline is None else time.monotonic_ns() + int(deadline * 1e9)
        return options

    def submit(self, *, deadline: float | None = None, user_data: int = 0, data_id: int = 0) -> Future[Tensors]:
        """Hands the request to the daemon; the future's result is `outputs`. `user_data` comes back in the completion,
        `data_id` names the data in the daemon's logs and traces."""
        return self._submit(None, deadline, user_data, data_id)

    def _submit(
        self, collect: Callable[[Loan], Any] | None, deadline: float | None, user_data: int = 0, data_id: int = 0
    ) -> Future[Any]:
        client = self._client
        client._enter()
        try:
            code = lib.reef_submit(client._session, self._c, self._set_options(user_data, data_id, deadline))
        finally:
            client._leave()
        if code < 0:
            raise client._error(code, self._permit)
        return client._track(Future(client, self, collect))

    def release(self) -> None:
        """Gives the slot back; its tensors are stale from here on. Does nothing the second time. `InFlight` if its
        request has not completed."""
        if self._permit[0] is STALE:
            return
        client = self._client
        client._enter()
        try:
            code = lib.reef_release(client._session, self._c)
        finally:
            client._leave()
        if code < 0:
            raise client._error(code, self._permit)
        self._permit[0] = STALE

    def _abandon(self) -> None:
        # Released as soon as it can be: now, or when its request has completed.
        if self._permit[0] is not STALE:
            self._permit[0] = STALE
            self._client._abandoned.append(self._c)

    def __enter__(self) -> Loan:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandon()
        if not self._client._busy:
            self._client._sweep()

    def __del__(self) -> None:
        # The collector may run in any thread: only a list is touched here, the client sweeps it later.
        if hasattr(self, "_permit"):
            self._abandon()

    def __repr__(self) -> str:
        state = self._permit[0]
        words = "held" if state is None else type(state).__name__
        return f"<Loan of slot {self._c.slot}, model {self.model}, {words}>"


class Future(Generic[T]):
    """A request in flight, in the manner of `concurrent.futures.Future`, and awaitable. It is completed by whichever
    call of its client sees the completion, in the thread of that call."""

    __slots__ = ("_callbacks", "_client", "_collect", "_completion", "_done", "_error", "_loan", "_result", "_waiters")

    def __init__(self, client: Client, loan: Loan, collect: Callable[[Loan], T] | None) -> None:
        self._client = client
        self._loan = loan
        self._collect = collect
        self._done = False
        self._error: ReefError | None = None
        self._completion: Completion | None = None
        self._result: Any = None
        self._callbacks: list[Callable[[Future[T]], object]] = []
        self._waiters: list[asyncio.Future[None]] = []

    def _land(self, completion: Completion) -> None:
        """The request has completed; `_notify` follows when the client may be called again."""
        self._completion = completion
        if self._loan._permit[0] is IN_FLIGHT:
            self._loan._permit[0] = None
        if completion.status < 0:
            self._error = self._client._failure(completion.status, self._loan)
        elif self._collect is None:
            self._result = self._loan.outputs
        else:
            self._result = self._collect(self._loan)
        if self._collect is not None:
            self._loan._abandon()
        self._done = True

    def _fail(self, error: ReefError) -> None:
        self._error = error
        self._done = True

    def _notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    @property
    def completion(self) -> Completion | None:
        """Times, preemptions, status; None while in flight."""
        return self._completion

    def done(self) -> bool:
        """Has it completed? Looks, never waits."""
        if not self._done:
            self._client.poll()
        return self._done

    def result(self, timeout: float | None = None) -> T:
        """The outputs; or raises what went wrong. `Timeout` after `timeout` seconds: the request goes on."""
        if not self._done:
            self._client._wait_for(self, timeout)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None) -> ReefError | None:
        """What went wrong, or None."""
        if not self._done:
            self._client._wait_for(self, timeout)
        return self._error

    def cancel(self, timeout: float = 1.0) -> bool:
        """True: it will end with `Cancelled`. False: too late, it is running (real-time) or done."""
        return not self._done and self._client._cancel(self._loan, timeout)

    def cancelled(self) -> bool:
        """Did it end by being cancelled?"""
        return self._done and isinstance(self._error, Cancelled)

    def add_done_callback(self, callback: Callable[[Future[T]], object]) -> None:
        """Calls `callback(self)` when it has completed, at once if it has."""
        if self._done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            waiter = self._client._waiter()
            self._waiters.append(waiter)
            yield from waiter
        return self.result()
