# SPDX-License-Identifier: Apache-2.0
"""The Python client against the peer."""

import asyncio
import errno
import gc
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import libreef
from libreef import Client

from .peer import Peer

IMAGE = np.arange(16, dtype=np.float32).reshape(8, 2) * 3 + 1


@pytest.fixture(params=[0.0, 0.001], ids=["wait", "spin"])
def connect(request: pytest.FixtureRequest, peer: Peer) -> Iterator[Callable[..., Client]]:
    """Opens clients of a peer with these options, in both ways of waiting."""
    clients: list[Client] = []

    def connect_to(*options: str, **settings: object) -> Client:
        peer.start(*options, *(["--spin"] if request.param else []))
        clients.append(Client("test", socket=peer.socket, spin=request.param, **settings))  # type: ignore[arg-type]
        return clients[-1]

    yield connect_to
    for client in clients:
        client.close()


@pytest.fixture
def waiting(peer: Peer) -> Iterator[Callable[..., Client]]:
    """The same without spinning, where that could make no difference."""
    clients: list[Client] = []

    def connect_to(*options: str, **settings: object) -> Client:
        peer.start(*options)
        clients.append(Client("test", socket=peer.socket, **settings))  # type: ignore[arg-type]
        return clients[-1]

    yield connect_to
    for client in clients:
        client.close()


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
    with Client("test", socket=peer.socket, timeout=20) as client:
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


# ---------------------------------------------------------------- requests


def test_infer_in_place_and_copied(connect: Callable[..., Client]) -> None:
    client = connect()
    with client.loan("echo") as loan:
        for number in range(5):
            loan.inputs["image"][:] = IMAGE + number
            outputs = loan.infer()
            np.testing.assert_array_equal(outputs["echo"], IMAGE + number)
            np.testing.assert_array_equal(outputs[0], IMAGE + number)
        completion = loan.completion
        assert completion.status == 0 and completion.end_ns >= completion.accept_ns > 0 and completion.loan is loan
    np.testing.assert_array_equal(client(image=IMAGE)["echo"], IMAGE)
    answer = client.infer("pair", {"a": [[1, 2, 3], [4, 5, 6]]}, b=[9, 8, 7, 6, 5])
    assert answer["sum"] == 21.0 and answer["b"].tolist() == [9, 8, 7, 6, 5]
    with pytest.raises(TypeError, match="takes a, b; got a"):
        client.infer("pair", a=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="broadcast"):
        client.infer("echo", image=np.zeros(3))
    for _ in range(3 * client.slots):  # nothing of the refused ones keeps a slot
        client(image=IMAGE)
    stats = client.stats()
    assert stats.accepted == stats.completed == 7 + 3 * client.slots


def test_zero_copy(connect: Callable[..., Client]) -> None:
    """The arrays of a loan are the slot's memory: the same address each time, inputs writable, outputs not."""
    client = connect()

    def addresses() -> set[int]:
        loans = [client.loan() for _ in range(client.slots)]
        at = {np.asarray(loan.inputs[0]).ctypes.data for loan in loans}
        for loan in loans:
            loan.release()
        return at

    first = addresses()
    assert len(first) == client.slots and all(address % 4096 == 0 for address in first)
    assert addresses() == first
    with client.loan() as loan:
        assert np.asarray(loan.inputs["image"]).flags.writeable
        output = np.asarray(loan.outputs["echo"])
        assert not output.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            output.flags.writeable = True
        with pytest.raises(ValueError, match="read-only"):
            loan.outputs["echo"][0] = 1


def test_views_expire(waiting: Callable[..., Client], peer: Peer) -> None:
    client = waiting("--hold")
    loan = client.loan()
    image, echo = loan.inputs["image"], loan.outputs["echo"]
    image[:] = IMAGE
    future = loan.submit()
    for use in (lambda: image[0], lambda: echo[0], lambda: np.asarray(image), lambda: image.sum(), lambda: image + 1):
        with pytest.raises(libreef.InFlight):
            use()
    with pytest.raises(libreef.InFlight):
        loan.release()
    peer.signal(signal.SIGUSR1)
    future.result(20)
    np.testing.assert_array_equal(echo, IMAGE)
    loan.release()
    loan.release()
    for use in (
        lambda: image[0],
        lambda: image.__setitem__(0, 1),
        lambda: np.asarray(echo),
        lambda: echo.sum(),
        lambda: echo.shape,
        lambda: np.add(image, 1),
        lambda: np.concatenate([echo, echo]),
        lambda: loan.outputs.copy(),
        lambda: loan.infer(),
        lambda: loan.submit(),
    ):
        with pytest.raises(libreef.StaleLoan):
            use()
    assert "StaleLoan" in repr(echo) and not loan.held
    with client.loan() as other:  # the same slot in other hands
        other.inputs["image"][:] = 5
        with pytest.raises(libreef.StaleLoan):
            image[0]


def test_tensors_behave_like_arrays(waiting: Callable[..., Client]) -> None:
    client = waiting()
    with client.loan() as loan:
        tensor = loan.inputs["image"]
        tensor[:] = IMAGE
        tensor -= 1
        assert isinstance(tensor, libreef.Tensor)
        np.testing.assert_array_equal(tensor, IMAGE - 1)
        np.add(tensor, 1, out=tensor)
        np.testing.assert_array_equal(tensor, IMAGE)
        assert tensor.shape == (8, 2) and tensor.dtype == np.float32 and len(tensor) == 8 and tensor.ndim == 2
        assert (tensor > 3).any() and tensor.argmax() == 15 and float(tensor[0, 0]) == 1.0
        np.testing.assert_array_equal(np.concatenate([tensor, tensor]), np.concatenate([IMAGE, IMAGE]))
        np.testing.assert_array_equal(np.stack((tensor, IMAGE)), np.stack((IMAGE, IMAGE)))
        np.testing.assert_array_equal(tensor.reshape(2, 8), IMAGE.reshape(2, 8))
        assert np.asarray(tensor, dtype=np.float64).dtype == np.float64
        assert np.array(tensor).base is None
        with pytest.raises(ValueError, match="without a copy"):
            tensor.__array__(np.float64, copy=False)
        np.copyto(tensor, 0)
        assert not tensor.any()
        loan.inputs["image"] = IMAGE
        assert list(loan.inputs) == ["image"] and len(loan.outputs) == 1
        with pytest.raises(KeyError, match="there are image"):
            loan.inputs["picture"]
    with client.loan("pair") as loan:
        loan.inputs["a"][...] = 2
        assert float(loan.infer()["sum"]) == 12.0


def test_escaped_arrays_keep_the_mapping(waiting: Callable[..., Client]) -> None:
    client = waiting()
    loan = client.loan()
    loan.inputs["image"][:] = IMAGE
    echo = np.asarray(loan.infer()["echo"])
    image = np.asarray(loan.inputs["image"])
    row = echo[3:]
    client.close()
    del loan, client
    gc.collect()
    np.testing.assert_array_equal(echo, IMAGE)
    image[:] = 7  # still mapped
    del echo, image
    gc.collect()
    np.testing.assert_array_equal(row, IMAGE[3:])


def mapped_regions(peer: Peer) -> int:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(str(peer.directory) in line for line in lines)


def test_mapping_goes_with_the_last_array(waiting: Callable[..., Client], peer: Peer) -> None:
    client = waiting()
    loan = client.loan()
    array = np.asarray(loan.inputs[0])
    client.close()
    del loan
    assert mapped_regions(peer) == 2
    del array
    gc.collect()
    assert mapped_regions(peer) == 0


def test_a_client_that_is_dropped_is_closed(waiting: Callable[..., Client], peer: Peer) -> None:
    peer.start()
    client = Client("test", socket=peer.socket)
    reference = weakref.ref(client)
    client.infer(image=IMAGE)
    del client
    gc.collect()
    assert reference() is None and mapped_regions(peer) == 0


# ---------------------------------------------------------------- futures


def test_futures(connect: Callable[..., Client]) -> None:
    client = connect()
    loans = [client.loan() for _ in range(3)]
    for number, loan in enumerate(loans):
        loan.inputs["image"][:] = number
    futures = client.submit_batch(loans)
    seen: list[object] = []
    futures[1].add_done_callback(seen.append)
    assert [future.result(20)["echo"][0, 0] for future in reversed(futures)] == [2.0, 1.0, 0.0]
    assert seen == [futures[1]] and all(future.done() for future in futures)
    futures[0].add_done_callback(seen.append)
    assert seen[-1] is futures[0] and futures[0].exception() is None and not futures[0].cancelled()
    again = loans[0].submit(user_data=41)
    again.result(20)
    assert again.completion and again.completion.user_data == 41 and again.completion.loan is loans[0]
    with pytest.raises(libreef.InFlight):
        client.submit_batch([loans[0], loans[0]])
    loans[0].infer()
    loans[1].release()
    with pytest.raises(libreef.StaleLoan):
        client.submit_batch(loans)
    many = [client.submit(image=IMAGE + number) for number in range(2)]
    for number, future in enumerate(many):
        np.testing.assert_array_equal(future.result(20)["echo"], IMAGE + number)


def test_a_callback_may_use_the_client(waiting: Callable[..., Client]) -> None:
    client = waiting()
    answers: list[float] = []
    future = client.submit(image=IMAGE)
    future.add_done_callback(lambda _: answers.append(float(client.infer(image=IMAGE + 1)["echo"][0, 0])))
    future.result(20)
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
        np.testing.assert_array_equal(future.result(20)["echo"], IMAGE)
        threading.Timer(0.3, peer.signal, [signal.SIGUSR1]).start()
        loan.infer(timeout=20)  # longer than one slice
        assert loan.completion.generation == 2


def test_cancel(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--hold")
    running, queued = client.loan(), client.loan()
    first, second = running.submit(), queued.submit()
    assert not first.cancel()
    assert second.cancel()
    with pytest.raises(libreef.Cancelled):
        second.result(20)
    assert second.cancelled() and not second.cancel()
    peer.signal(signal.SIGUSR1)
    first.result(20)
    assert not first.cancelled()


def test_leaving_a_loan_in_flight(waiting: Callable[..., Client], peer: Peer) -> None:
    """A loan that goes while its request is in flight gives its slot back when that completes."""
    client = waiting("--hold", "--slots=1")
    with client.loan() as loan:
        loan.submit()
    with pytest.raises(libreef.NoFreeSlot):
        client.loan()
    peer.signal(signal.SIGUSR1)
    end = time.monotonic() + 20
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
        np.testing.assert_array_equal(future.result(20)["echo"], IMAGE + number)
    held = [client.loan(), client.loan()]
    with pytest.raises(libreef.NoFreeSlot):
        client.loan()
    del held


def test_queue_latest(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--slots=3", "--policy=2", "--hold")
    futures = [client.submit(image=IMAGE + number) for number in range(6)]
    peer.signal(signal.SIGUSR1)
    ends = [future.exception(20) for future in futures]
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
    assert peer.process and peer.process.wait(20) == -signal.SIGKILL
    with pytest.raises(libreef.Timeout):
        future.result(0.05)
    peer.start()
    np.testing.assert_array_equal(future.result(20)["echo"], IMAGE)
    assert future.completion and future.completion.replayed
    client.infer(image=IMAGE)


def test_daemon_death_without_reconnect(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--die-after=1", reconnect=False)
    future = client.submit(image=IMAGE)
    with pytest.raises(libreef.DaemonGone):
        future.result(20)
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
    end = time.monotonic() + 20
    while client.stats().preempted == 0:  # where the peer counts them
        assert time.monotonic() < end


# ---------------------------------------------------------------- threads, processes, signals


def test_one_thread_at_a_time(waiting: Callable[..., Client], peer: Peer) -> None:
    client = waiting("--hold")
    loan, other = client.loan(), client.loan()
    future = loan.submit()
    waiter = threading.Thread(target=future.result)
    waiter.start()
    end = time.monotonic() + 20
    while not client._busy:
        assert time.monotonic() < end
    with pytest.raises(libreef.WrongThread):
        while True:  # the waiter leaves C for a moment now and then
            client.poll()
    peer.signal(signal.SIGUSR1)
    waiter.join(20)
    assert not waiter.is_alive()
    client._busy = True
    for use in (other.infer, other.submit, other.release, client.loan, client.poll, client.close, client.announce):
        with pytest.raises(libreef.WrongThread):
            use()
    client._busy = False
    other.release()


FORKED = """
import os, sys
import numpy as np
import libreef
client = libreef.Client("test", socket=sys.argv[1])
loan = client.loan()
loan.inputs["image"][:] = 1
loan.infer()
child = os.fork()
if child == 0:
    for use in (lambda: client.loan(), lambda: loan.infer(), lambda: client.infer(image=np.zeros((8, 2)))):
        try:
            use()
        except libreef.ForkedProcess:
            continue
        os._exit(1)
    client.close()
    del loan, client
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
loan.infer()
print("good")
"""


def test_fork(peer: Peer) -> None:
    peer.start()
    done = subprocess.run([sys.executable, "-c", FORKED, str(peer.socket)], text=True, capture_output=True, timeout=60)
    assert done.stdout == "good\n", done.stderr


INTERRUPTED = """
import os, signal, sys, threading
import libreef
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell leaves it ignored
client = libreef.Client("test", socket=sys.argv[1])
loan = client.loan()
threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    loan.infer()
except KeyboardInterrupt:
    print("good")
"""


def test_ctrl_c_ends_a_wait(peer: Peer) -> None:
    peer.start("--hold")
    command = [sys.executable, "-c", INTERRUPTED, str(peer.socket)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60)
    assert done.stdout == "good\n", done.stderr


# ---------------------------------------------------------------- asyncio


def test_await(connect: Callable[..., Client]) -> None:
    client = connect("--delay-us=500")

    async def one(number: int) -> float:
        return float((await client.submit(image=IMAGE + number))["echo"][0, 0])

    async def main() -> list[float]:
        return await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(4))), 20)

    for _ in range(3):  # each run has a loop of its own
        assert asyncio.run(main()) == [1.0, 2.0, 3.0, 4.0]


def test_await_beside_blocking_calls(connect: Callable[..., Client]) -> None:
    """A blocking call in the loop's thread takes completions off the ring that a coroutine waits for."""
    client = connect("--delay-us=200")

    async def main() -> None:
        with client.loan() as loan:
            for number in range(50):
                future = client.submit(image=IMAGE + number)
                task = asyncio.ensure_future(asyncio.wait_for(_result(future), 20))
                await asyncio.sleep(0)
                loan.inputs["image"][:] = number
                assert loan.infer()["echo"][0, 0] == number
                assert (await task)["echo"][0, 0] == 1 + number

    asyncio.run(main())


async def _result(future: "libreef.Future[dict[str, np.ndarray]]") -> dict[str, np.ndarray]:
    return await future


def test_completions_as_an_async_iterator(connect: Callable[..., Client]) -> None:
    client = connect("--delay-us=300")

    async def main() -> list[int]:
        seen = []
        completions = client.completions()
        loans = [client.loan() for _ in range(3)]
        for number, loan in enumerate(loans):
            loan.submit(user_data=number)

        async def read() -> None:
            async for completion in completions:
                assert completion.status == 0 and completion.loan is not None
                seen.append(completion.user_data)
                if len(seen) < 30:
                    completion.loan.submit(user_data=len(seen) + 2)
                elif len(seen) == 32:
                    break

        await asyncio.wait_for(read(), 20)
        return seen

    assert sorted(asyncio.run(main())) == list(range(32))


def test_event_loop_survives_the_daemon(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--die-after=1")
    assert peer.process

    async def main() -> None:
        future = client.submit(image=IMAGE)
        waiting = asyncio.ensure_future(_result(future))
        await asyncio.to_thread(peer.process.wait, 20)
        assert not waiting.done()
        peer.start("--delay-us=100")
        assert (await asyncio.wait_for(waiting, 20))["echo"].sum() == IMAGE.sum()
        assert (await asyncio.wait_for(_result(client.submit(image=IMAGE)), 20))["echo"].sum() == IMAGE.sum()

    asyncio.run(main())


def test_end_of_the_session_ends_what_is_awaited(connect: Callable[..., Client]) -> None:
    client = connect("--die-after=1", reconnect=False)

    async def main() -> None:
        future = client.submit(image=IMAGE)
        completions = client.completions()
        with pytest.raises(libreef.DaemonGone):
            await asyncio.wait_for(_result(future), 20)
        assert [completion async for completion in completions] == []

    asyncio.run(main())


# ---------------------------------------------------------------- the surface


def test_everything_public_is_documented() -> None:
    for name in libreef.__all__:
        thing = getattr(libreef, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for method, value in vars(thing).items():
                if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{method}"
