"""Every coroutine can be cancelled at any await: nothing is lost, nothing is doubled, no task stays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import unstall
from harness import Proxy, Serve, until

Run = Callable[..., Any]
#: More turns of the event loop than any of these coroutines takes when nothing holds it up.
TURNS = 60


async def cancelled_after(turns: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Runs it for so many turns of the event loop, then cancels it: whether it was cancelled."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    return task.cancelled()


def test_connect_leaves_nothing_behind(serve: Serve, run: Run) -> None:
    async def main() -> None:
        sessions: list[unstall.Session] = []

        async def connect() -> None:
            sessions.append(await unstall.connect(serve.url + "/echo"))

        cancelled = 0
        for turns in range(TURNS):
            cancelled += await cancelled_after(turns, connect())
            await until(lambda: tasks_besides(sessions) == 0, f"after {turns} turns a task is left", 2.0)
        assert cancelled > 5
        for session in sessions:
            assert (await session.close()).clean

    run(main())


def tasks_besides(sessions: list[unstall.Session]) -> int:
    open_ones = sum(not session.is_closed for session in sessions)
    names = [task.get_name() for task in asyncio.all_tasks()]
    return names.count("unstall") - open_ones


def test_leaving_the_block_leaves_nothing_behind(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async def use() -> None:
            async with unstall.connect(serve.url + "/echo") as session:
                await session.send("one")
                await session.recv()
                await session.recv()

        for turns in range(TURNS):
            assert await cancelled_after(turns, use())
            await until(lambda: tasks_besides([]) == 0, f"after {turns} turns a task is left", 2.0)

    run(main())


def test_close_ends_at_once(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with Proxy(serve.port) as proxy:
            for turns in range(12):
                session = await unstall.connect(proxy.url + "/sink")
                proxy.freeze()
                await session.send("kept")
                # Without a turn, close has not begun.
                assert await cancelled_after(turns + 1, session.close(within=30))
                await until(lambda: tasks_besides([]) == 0, f"after {turns} turns a task is left", 2.0)
                assert session.is_closed
                assert [back.message for back in session.take_undelivered()] == ["kept"]
                proxy.thaw()
                proxy.cut()

    run(main())


@pytest.mark.parametrize("batches", [False, True], ids=["messages", "batches"])
def test_send_and_receive_lose_and_double_nothing(
    serve: Serve, run: Run, seeds: list[int], batches: bool
) -> None:
    count = 2_000

    async def main(seed: int) -> None:
        draw = random.Random(seed)
        cancelled = {"send": 0, "recv": 0}
        async with Proxy(serve.port) as proxy:
            reconnect = unstall.Reconnect(first=0.005, longest=0.02)
            session = await unstall.connect(proxy.url + "/echo", reconnect=reconnect, outbox=4_000)
            proxy.cuts = [draw.randint(2_000, 100_000) for _ in range(10)]
            proxy.cut()
            accepted: list[int] = []
            received: list[object] = []

            async def send(number: int) -> None:
                await session.send(f"{number:200}")
                accepted.append(number)

            async def receive() -> None:
                if batches:
                    received.extend(await session.recv_batch())
                else:
                    received.append(await session.recv())

            async def sender() -> None:
                while len(accepted) < count:
                    number = len(accepted)
                    cancelled["send"] += await cancelled_after(draw.randint(0, 3), send(number))

            async def receiver() -> None:
                while len(received) < count:
                    cancelled["recv"] += await cancelled_after(draw.randint(0, 3), receive())

            await asyncio.gather(sender(), receiver())
            assert accepted == list(range(count))
            assert received == [f"{number:200}" for number in range(count)], f"seed {seed}"
            assert min(cancelled.values()) > 100, cancelled
            await session.delivered()
            assert (await session.close()).clean

    for seed in seeds:
        run(main(seed))


def test_task_groups_and_timeouts_of_anyio(serve: Serve, run: Run) -> None:
    """anyio cancels a scope again and again until it is left, so what is awaited while it closes would be
    cancelled at once."""
    count = 2_000

    async def main() -> None:
        accepted: list[int] = []
        received: list[object] = []

        async def send(session: unstall.Session) -> None:
            while len(accepted) < count:
                with anyio.move_on_after(random.random() / 2000):
                    await session.send(f"{len(accepted):100}")
                    accepted.append(len(accepted))
                await anyio.lowlevel.checkpoint()

        async def receive(session: unstall.Session) -> None:
            while len(received) < count:
                with anyio.move_on_after(random.random() / 2000):
                    received.append(await session.recv())

        session = await unstall.connect(serve.url + "/echo", outbox=2_000)
        async with anyio.create_task_group() as group:
            group.start_soon(send, session)
            group.start_soon(receive, session)
        assert received == [f"{number:100}" for number in range(count)]
        await session.close()

        with anyio.move_on_after(0.05) as scope:
            async with unstall.connect(serve.url + "/echo") as session:
                await session.recv()
        assert scope.cancelled_caught
        assert session.is_closed
        async with anyio.create_task_group() as group:
            group.start_soon(hang, serve.url)
            await anyio.sleep(0.05)
            group.cancel_scope.cancel()

    run(main())


async def hang(url: str) -> None:
    async with unstall.connect(url + "/echo") as session:
        async for _ in session:
            pass


def test_delivered_can_be_cancelled_and_asked_again(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with Proxy(serve.port) as proxy:
            session = await unstall.connect(proxy.url + "/sink")
            proxy.freeze()
            await session.send("one")
            for turns in range(5):
                assert await cancelled_after(turns, session.delivered())
            proxy.thaw()
            await session.delivered()
            assert (await session.close()).clean

    run(main())
