# SPDX-License-Identifier: Apache-2.0
"""The Python client against the peer: tensors in place, copies, and how long arrays hold the memory."""

import gc
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import libreef
from libreef import Client

from .peer import Peer

IMAGE = np.arange(16, dtype=np.float32).reshape(8, 2) * 3 + 1


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
    future.result(60)
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
