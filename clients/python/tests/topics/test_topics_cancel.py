"""Cancelled anywhere, nothing is lost, nothing comes twice, and nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import anyio
import pytest
from support import Hub, numbers_of, on_loop, publish_numbers, take, until

from unstall import Reconnect
from unstall.topics import Message, Stored, Topics

QUICK = Reconnect(first=0.01, longest=0.05)


class Cancelling:
    """Awaits something, and throws a cancellation into it at its n-th suspension."""

    def __init__(self, work: Any, at: int) -> None:
        self._work, self._at, self.was_cancelled = work, at, False

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        step = inner.send(None) if hasattr(inner, "send") else next(inner)
        count = 0
        while True:
            count += 1
            if count == self._at:
                self.was_cancelled = True
                try:
                    step = inner.throw(asyncio.CancelledError())
                except StopIteration as done:
                    return done.value
                continue
            try:
                value = yield step
                step = inner.send(value)
            except StopIteration as done:
                return done.value


@on_loop
async def test_a_receiver_that_is_cancelled_at_any_moment_loses_no_message(hub: Hub) -> None:
    count = 400
    async with Topics(hub.url) as reader, Topics(hub.url) as writer:
        subscription = reader.subscribe("t")
        publishing = asyncio.ensure_future(publish_numbers(writer, "t", range(count), pause=0.002, size=7))
        got: list[Message] = []
        cancelled = turn = 0
        while len(got) < count:
            receiving = asyncio.ensure_future(subscription.recv())
            turn += 1
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            receiving.cancel()
            try:
                delivery = await receiving
            except asyncio.CancelledError:
                cancelled += 1
                await asyncio.sleep(0.0005)
                continue
            assert isinstance(delivery, Message)
            got.append(delivery)
        await publishing
    assert numbers_of(got) == list(range(count))
    assert cancelled > 20


@on_loop
async def test_a_receiver_with_a_time_limit_loses_no_message(hub: Hub) -> None:
    """`wait_for` and anyio's scopes cancel while a message arrives."""
    count = 300
    async with Topics(hub.url) as reader, Topics(hub.url) as writer:
        subscription = reader.subscribe("t")
        publishing = asyncio.ensure_future(publish_numbers(writer, "t", range(count), pause=0.001, size=3))
        got: list[Message] = []
        while len(got) < count:
            with anyio.move_on_after(0.0007):
                delivery = await subscription.recv()
                assert isinstance(delivery, Message)
                got.append(delivery)
            try:
                delivery = await asyncio.wait_for(subscription.recv(), 0.0007)
            except asyncio.TimeoutError:
                continue
            assert isinstance(delivery, Message)
            got.append(delivery)
        await publishing
    assert numbers_of(got) == list(range(count))


@on_loop
async def test_a_publisher_that_is_cancelled_harms_no_other_message(hub: Hub) -> None:
    async with Topics(hub.url, publish_window=262_144) as topics:
        tasks = []
        for number in range(300):
            tasks.append(asyncio.ensure_future(topics.publish("t", str(number).ljust(2_000))))
            if number % 3 == 0:
                await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number % 3 == 1:
                task.cancel()
                await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        last = await topics.publish("t", "end")
        assert last.offset is not None
        got = await take(topics.subscribe("t"), last.offset)
    texts = [str(message.data).strip() for message in got]
    assert len(set(texts)) == len(texts)
    for number, result in enumerate(results):
        if isinstance(result, Stored):
            assert result.offset is not None
            assert texts[result.offset - 1] == str(number)
        else:
            assert number % 3 == 1
    assert topics.stats().unanswered == 0


@pytest.mark.parametrize("at", range(1, 16))
@on_loop
async def test_a_client_that_is_cancelled_at_any_await_leaves_nothing_behind(hub: Hub, at: int) -> None:
    async def work() -> None:
        async with Topics(hub.url) as topics:
            subscription = topics.subscribe("t")
            await topics.publish("t", "one")
            await topics.publish_many([("t", "two"), ("t", "three")])
            await take(subscription, 3)
            await topics.close()

    doing = Cancelling(work(), at)
    try:
        await doing
    except asyncio.CancelledError:
        assert doing.was_cancelled
    await until(lambda: len(asyncio.all_tasks()) <= 2)
    others = {task.get_name() for task in asyncio.all_tasks()}
    assert "unstall topics" not in others


@on_loop
async def test_a_task_group_that_fails_ends_its_client(hub: Hub) -> None:
    async def fail() -> None:
        await anyio.sleep(0.05)
        raise KeyError("mine")

    with pytest.raises(BaseException, match=r"mine|unhandled") as error:  # noqa: PT012
        async with anyio.create_task_group() as group:

            async def read() -> None:
                async with Topics(hub.url) as topics:
                    async for _ in topics.subscribe("t"):
                        pass

            group.start_soon(read)
            group.start_soon(fail)
    assert "KeyError" in repr(error.value)
    assert "unstall topics" not in {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01, 0.03, 0.1])
@on_loop
async def test_a_client_can_end_while_it_connects(hub: Hub, delay: float) -> None:
    with anyio.move_on_after(delay):
        async with Topics([hub.url, "ws://127.0.0.1:9"], reconnect=QUICK) as topics:
            topics.subscribe("t")
            await anyio.sleep_forever()
    assert "unstall topics" not in {task.get_name() for task in asyncio.all_tasks()}


@on_loop
async def test_a_close_that_is_cancelled_ends_the_client_all_the_same() -> None:
    async with Topics("ws://127.0.0.1:9", reconnect=QUICK) as topics:
        publishing = asyncio.ensure_future(topics.publish("t", "x"))
        await asyncio.sleep(0.02)
        with anyio.move_on_after(0.05):
            await topics.close(60)
        assert topics._keeper.ended is not None
        assert isinstance((await asyncio.gather(publishing, return_exceptions=True))[0], Exception)


@on_loop
async def test_an_iteration_that_is_cancelled_or_left_goes_on_with_the_next_one(hub: Hub) -> None:
    count = 300
    async with Topics(hub.url) as reader, Topics(hub.url) as writer:
        subscription = reader.subscribe("t")
        publishing = asyncio.ensure_future(publish_numbers(writer, "t", range(count), pause=0.001, size=5))
        got: list[Message] = []
        while len(got) < count:
            with anyio.move_on_after(0.0015):
                async for delivery in subscription:
                    assert isinstance(delivery, Message)
                    got.append(delivery)
                    if len(got) % 11 == 0:
                        break
        await publishing
    assert numbers_of(got) == list(range(count))


@on_loop
async def test_an_iteration_ends_when_its_subscription_is_closed(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await publish_numbers(topics, "t", range(50))
        subscription = topics.subscribe("t")
        got = []
        async for delivery in subscription:
            got.append(delivery)
            if len(got) == 3:
                subscription.close()
        assert len(got) == 3
        assert subscription.stats().messages == 3
        assert subscription.position == got[-1].position
