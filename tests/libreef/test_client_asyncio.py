# SPDX-License-Identifier: Apache-2.0
"""The Python client against the peer: in an event loop."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

import libreef
from libreef import Client

from .peer import Peer

IMAGE = np.arange(16, dtype=np.float32).reshape(8, 2) * 3 + 1


def test_await(connect: Callable[..., Client]) -> None:
    client = connect("--delay-us=500")

    async def one(number: int) -> float:
        return float((await client.submit(image=IMAGE + number))["echo"][0, 0])

    async def main() -> list[float]:
        return await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(4))), 60)

    for _ in range(3):  # each run has a loop of its own
        assert asyncio.run(main()) == [1.0, 2.0, 3.0, 4.0]


def test_await_beside_blocking_calls(connect: Callable[..., Client]) -> None:
    """A blocking call in the loop's thread takes completions off the ring that a coroutine waits for."""
    client = connect("--delay-us=200")

    async def main() -> None:
        with client.loan() as loan:
            for number in range(50):
                future = client.submit(image=IMAGE + number)
                task = asyncio.ensure_future(asyncio.wait_for(_result(future), 60))
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

        await asyncio.wait_for(read(), 60)
        return seen

    assert sorted(asyncio.run(main())) == list(range(32))


def test_event_loop_survives_the_daemon(connect: Callable[..., Client], peer: Peer) -> None:
    client = connect("--die-after=1")
    assert peer.process

    async def main() -> None:
        future = client.submit(image=IMAGE)
        waiting = asyncio.ensure_future(_result(future))
        await asyncio.to_thread(peer.process.wait, 60)
        assert not waiting.done()
        peer.start("--delay-us=100")
        assert (await asyncio.wait_for(waiting, 60))["echo"].sum() == IMAGE.sum()
        assert (await asyncio.wait_for(_result(client.submit(image=IMAGE)), 60))["echo"].sum() == IMAGE.sum()

    asyncio.run(main())


def test_end_of_the_session_ends_what_is_awaited(connect: Callable[..., Client]) -> None:
    client = connect("--die-after=1", reconnect=False)

    async def main() -> None:
        future = client.submit(image=IMAGE)
        completions = client.completions()
        with pytest.raises(libreef.DaemonGone):
            await asyncio.wait_for(_result(future), 60)
        assert [completion async for completion in completions] == []

    asyncio.run(main())
