# SPDX-License-Identifier: Apache-2.0
"""The Python client against the peer: opening, futures, the end of daemon and session."""

import errno
import inspect
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

import libreef
from libreef import Client

from .peer import Peer

IMAGE = np.arange(16, dtype=np.float32).reshape(8, 2) * 3 + 1


# ---------------------------------------------------------------- opening


def test_probe_and_open_say_who_is_there(peer: Peer) -> None:
    with pytest.raises(libreef.DaemonUnreachable, match="REEF_SOCKET") as caught:
        Client("test", socket=peer.socket, timeout=0.02)
    assert caught.value.code == -errno.ENOENT
    assert isinstance(caught.value, libreef.DaemonGone)
    peer.start()
    assert peer.process
    info = libreef.probe(peer.socket)
    assert info.pid == peer.process.pid and info.version == "peer 1" and info.abi == (1, 1)
    with pytest.raises(libreef.UnknownTask, match="there is: test"):
        Client("other", socket=peer.socket)
    with Client("test", socket=os.fspath(peer.socket)) as client:
        assert client.slots == 4
        assert [model.name for model in client.models] == ["echo", "pair"]
        pair = client.model("pair")
        assert pair.inputs[0] == libreef.TensorInfo("a", np.dtype(np.int32), (2, 3), 24)
        assert pair.outputs[0].shape == () and pair.outputs[0].dtype == np.float64
        with pytest.raises(KeyError, match="it has echo, pair"):
            client.model("nothing")


def test_open_waits_for_the_daemon(peer: Peer) -> None:
    starter = threading.Timer(0.2, peer.start)
    starter.start()
    with Client("test", socket=peer.socket, timeout=60) as client:
        assert client.infer(image=IMAGE)["echo"].sum() == IMAGE.sum()
    starter.join()


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("--refuse=13", libreef.AccessDenied),
        ("--refuse=24", libreef.TooManySessions),
        ("--corrupt=crc", libreef.DamagedRegion),
        ("--fds=2", libreef.ProtocolError),
        ("--abi=7", libreef.AbiMismatch),
    ],
)
def test_refusals_are_typed(peer: Peer, option: str, error: type[libreef.ReefError]) -> None:
    peer.start(option)
    with pytest.raises(error) as caught:
        Client("test", socket=peer.socket)
    if option == "--refuse=13":
        assert str(caught.value) == "refused on purpose"
    if error is libreef.AbiMismatch:
        assert "7.1" in str(caught.value) and "1.1" in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is error and copy.code == caught.value.code


# ---------------------------------------------------------------- futures


def test_futures(connect: Callable[..., Client]) -> None:
    client = connect()
    loans = [client.loan() for _ in range(3)]
    for number, loan in enumerate(loans):
        loan.inputs["image"][:] = number
    futures = client.submit_batch(loans)
    seen: list[object] = []
    futures[1].add_done_callback(seen.append)
    assert [future.result(60)["echo"][0, 0] for future in reversed(futures)] == [2.0, 1.0, 0.0]
    assert seen == [futures[1]] and all(future.done() for future in futures)
    futures[0].add_done_callback(seen.append)
    assert seen[-1] is futures[0] and futures[0].exception() is None and not futures[0].cancelled()
    again = loans[0].submit(user_data=41)
    again.result(60)
    assert again.completion and again.completion.user_data == 41 and again.completion.loan is loans[0]
    with pytest.raises(libreef.InFlight):
        client.submit_batch([loans[0], loans[0]])
    loans[0].infer()
    loans[1].release()
    with pytest.raises(libreef.StaleLoan):
        client.submit_batch(loans)
    many = [client.submit(image=IMAGE + number) for number in range(2)]
    for number, future in enumerate(many):
        np.testing.assert_array_equal(future.result(60)["echo"], IMAGE + number)


def test_a_callback_may_use_the_client(waiting: Callable[..., Client]) -> None:
    client = waiting()
    answers: list[float] = []
    future = client.submit(image=IMAGE)
    future.add_done_callback(lambda _: answers.append(float(client.infer(image=IMAGE + 1)["echo"][0, 0])))
    future.result(60)
    assert answers == [2.0]


def test_timeout_does_not_end_the_request(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--hold")
    with client.loan() as loan:
        loan.inputs["image"][:] = IMAGE
        with pytest.raises(libreef.Timeout) as caught:
            loan.infer(timeout=0.01)
        assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, libreef.ReefError)
        with pytest.raises(libreef.InFlight):
            loan.infer()
        future = client._pending[loan.slot, 1]
        with pytest.raises(libreef.Timeout):
            future.result(0.01)
        assert not future.done()
        peer.signal(signal.SIGUSR1)
        np.testing.assert_array_equal(future.result(60)["echo"], IMAGE)
        answered = threading.Event()

        def answer_later() -> None:
            while not answered.wait(0.3):
                peer.signal(signal.SIGUSR1)

        answering = threading.Thread(target=answer_later)
        answering.start()
        loan.infer(timeout=60)  # longer than one slice
        answered.set()
        answering.join()
        assert loan.completion.generation == 2


def test_cancel(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--hold")
    running, queued = client.loan(), client.loan()
    first, second = running.submit(), queued.submit()
    assert not first.cancel()
    assert second.cancel()
    with pytest.raises(libreef.Cancelled):
        second.result(60)
    assert second.cancelled() and not second.cancel()
    peer.signal(signal.SIGUSR1)
    first.result(60)
    assert not first.cancelled()


def test_leaving_a_loan_in_flight(waiting: Callable[..., Client], peer: Peer) -> None:
    """A loan that goes while its request is in flight gives its slot back when that completes."""
    client = waiting("--hold", "--slots=1")
    with client.loan() as loan:
        loan.submit()
    with pytest.raises(libreef.NoFreeSlot):
        client.loan()
    peer.signal(signal.SIGUSR1)
    end = time.monotonic() + 60
    while client.poll() == 0:
        assert time.monotonic() < end
    loan = client.loan()
    del loan  # dropped, not released
    client.loan().release()


def test_no_free_slot(waiting: Callable[..., Client]) -> None:
    client = waiting("--slots=2")
    loans = [client.loan(), client.loan()]
    with pytest.raises(libreef.NoFreeSlot, match="all 2 slots"):
        client.loan(timeout=5)
    loans[0].release()
    client.loan().release()


def test_queue_block(connect: Callable[..., Client]) -> None:
    client = connect("--slots=2", "--policy=1", "--delay-us=3000")
    futures = [client.submit(image=IMAGE + number) for number in range(10)]
    for number, future in enumerate(futures):
        np.testing.assert_array_equal(future.result(60)["echo"], IMAGE + number)
    held = [client.loan(), client.loan()]
    with pytest.raises(libreef.NoFreeSlot):
        client.loan()
    del held


def test_queue_latest(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--slots=3", "--policy=2", "--hold")
    futures = [client.submit(image=IMAGE + number) for number in range(6)]
    peer.signal(signal.SIGUSR1)
    ends = [future.exception(60) for future in futures]
    assert [type(end) for end in ends] == [type(None)] + [libreef.Cancelled] * 3 + [type(None)] * 2
    np.testing.assert_array_equal(futures[5].result()["echo"], IMAGE + 5)


# ---------------------------------------------------------------- ends


def test_close_is_idempotent_and_final(waiting: Callable[..., Client]) -> None:
    client = waiting("--hold")
    loan = client.loan()
    future = loan.submit()
    client.close()
    client.close()
    assert client.closed and "closed" in repr(client)
    with pytest.raises(libreef.ClientClosed):
        future.result()
    for use in (client.loan, client.announce, client.stats, client.poll, lambda: client.infer(image=IMAGE)):
        with pytest.raises(libreef.ClientClosed):
            use()
    with pytest.raises(libreef.ClientClosed):
        loan.infer()
    with pytest.raises(libreef.StaleLoan):
        loan.inputs["image"][0]
    loan.release()


def test_daemon_death_and_return(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--die-after=3")
    client.infer(image=IMAGE)
    client.infer(image=IMAGE)
    future = client.submit(image=IMAGE)
    assert peer.process and peer.process.wait(60) == -signal.SIGKILL
    with pytest.raises(libreef.Timeout):
        future.result(0.05)
    peer.start()
    np.testing.assert_array_equal(future.result(60)["echo"], IMAGE)
    assert future.completion and future.completion.replayed
    client.infer(image=IMAGE)


def test_daemon_death_without_reconnect(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--die-after=1", reconnect=False)
    future = client.submit(image=IMAGE)
    with pytest.raises(libreef.DaemonGone):
        future.result(60)
    assert isinstance(future.exception(), libreef.DaemonGone)


def test_session_over(connect: Callable[..., Client]) -> None:
    client = connect("--quarantine-after=1")
    with pytest.raises(libreef.ProtocolError):
        client.infer(image=IMAGE)
    with pytest.raises(libreef.ProtocolError, match="dropped"):
        client.infer(image=IMAGE)


def test_announce_reaches_the_daemon(waiting: Callable[..., Client]) -> None:
    client = waiting()
    client.announce()
    end = time.monotonic() + 60
    while client.stats().preempted == 0:  # where the peer counts them
        assert time.monotonic() < end


# ---------------------------------------------------------------- the surface


def test_everything_public_is_documented() -> None:
    for name in libreef.__all__:
        thing = getattr(libreef, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for method, value in vars(thing).items():
                if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{method}"
