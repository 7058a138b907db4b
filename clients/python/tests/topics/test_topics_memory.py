"""A consumer that stops and goes takes bounded memory, whatever is published."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest
from support import Hub, numbers_of, on_loop, take, until

from unstall.topics import Message, Topics


@pytest.mark.parametrize(("size", "count"), [(0, 100_000), (1_000, 20_000)])
@on_loop
async def test_memory_stays_in_proportion_to_the_window(size: int, count: int) -> None:
    """Published through one client, read with stops through another, in a hub with enough memory."""
    window = 262_144
    hub = Hub("--max-bytes", "64MiB").start()
    try:
        async with Topics(hub.url) as writer, Topics(hub.url, window=window) as reader:
            subscription = reader.subscribe("t")

            async def publish() -> None:
                for first in range(0, count, 2_000):
                    some = range(first, first + 2_000)
                    results = await writer.publish_many([("t", str(n).rjust(size)) for n in some])
                    assert not [result for result in results if isinstance(result, Exception)]

            await publish()
            await until(lambda: subscription.stats().waiting_bytes > window // 2)
            gc.collect()
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            got = 0
            while got < count:
                batch = await subscription.recv_batch()
                numbers = numbers_of([d for d in batch if isinstance(d, Message)])
                assert numbers == list(range(got, got + len(batch)))
                got += len(batch)
                del batch, numbers
                if got % 7 == 0:
                    # It stops, and everything that may come has come.
                    await asyncio.sleep(0.001)
                assert subscription.stats().waiting_bytes <= window
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    finally:
        hub.stop()
    # Twice the window is there at a time: what the application holds of it, and what comes meanwhile. A
    # message without a payload takes 65 bytes of it, and about 400 of memory.
    assert peak - before < 14 * window


@on_loop
async def test_one_hundred_thousand_messages_come_to_a_consumer_that_stops_and_goes(hub: Hub) -> None:
    count = 100_000
    async with Topics(hub.url) as writer, Topics(hub.url, window=262_144) as reader:
        subscription = reader.subscribe("t")

        async def publish() -> None:
            for first in range(0, count, 500):
                await writer.publish_many([("t", str(n)) for n in range(first, first + 500)])

        publishing = asyncio.ensure_future(publish())
        numbers: list[int] = []
        while len(numbers) < count:
            numbers += numbers_of(await take(subscription, 10_000))
            assert subscription.stats().waiting_bytes <= 262_144
            await asyncio.sleep(0.05)
        await publishing
    assert numbers == list(range(count))
