"""Topics over connections that are cut, hubs that are killed, and logs that lose messages."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import shutil

import pytest
from support import CutProxy, Hub, numbers_of, on_loop, publish_numbers, take, until

from unstall import Reconnect
from unstall.topics import Connected, Disconnected, Event, Gap, Message, PublishError, Stored, Topics

QUICK = Reconnect(first=0.01, longest=0.2)


@pytest.mark.parametrize("seed", range(1, 7))
@on_loop
async def test_a_subscriber_gets_each_message_once_over_cuts_at_any_byte(hub: Hub, seed: int) -> None:
    count = 3_000
    async with (
        CutProxy(hub.port, seed, (200, 20_000), 15) as proxy,
        Topics(proxy.url, reconnect=QUICK) as reader,
        Topics(hub.url) as writer,
    ):
        publishing = asyncio.ensure_future(publish_numbers(writer, "t", range(count), pause=0.005))
        assert numbers_of(await take(reader.subscribe("t"), count)) == list(range(count))
        await publishing
    assert proxy.cut >= 3


@pytest.mark.parametrize("seed", range(1, 7))
@on_loop
async def test_each_published_message_is_stored_once_over_cuts_at_any_byte(hub: Hub, seed: int) -> None:
    count = 3_000
    async with (
        CutProxy(hub.port, seed, (200, 20_000), 15) as proxy,
        Topics(proxy.url, reconnect=QUICK) as writer,
        Topics(hub.url) as reader,
    ):
        messages = [("t", str(n).ljust(50)) for n in range(count)]
        stored: list[Stored | PublishError] = []
        for first in range(0, count, 100):
            stored += await writer.publish_many(messages[first : first + 100])
        got = await take(reader.subscribe("t"), count)
        assert [result.offset for result in stored if isinstance(result, Stored)] == [m.offset for m in got]
        assert numbers_of(got) == list(range(count))
        assert (await writer.publish("t", "last")).offset == count + 1
    assert proxy.cut >= 3


@pytest.mark.parametrize("seed", range(1, 4))
@on_loop
async def test_long_messages_come_whole_and_once_over_cuts(hub: Hub, seed: int) -> None:
    sent = [bytes([n]) * (150_000 + n) for n in range(20)]
    async with (
        CutProxy(hub.port, seed, (100_000, 600_000), 10) as proxy,
        Topics(proxy.url, reconnect=QUICK) as topics,
    ):
        subscription = topics.subscribe("t")
        publishing = asyncio.ensure_future(topics.publish_many([("t", data) for data in sent]))
        assert [m.data for m in await take(subscription, len(sent))] == sent
        assert all(isinstance(result, Stored) for result in await publishing)
    assert proxy.cut >= 3


@on_loop
async def test_a_hub_that_is_killed_and_started_again_loses_and_doubles_nothing(stored_hub: Hub) -> None:
    count = 4_000
    async with Topics(stored_hub.url, reconnect=QUICK) as topics:
        subscription = topics.subscribe("t")
        reading = asyncio.ensure_future(take(subscription, count))
        publishing = asyncio.ensure_future(publish_numbers(topics, "t", range(count), pause=0.005))
        for _ in range(3):
            stored = topics.stats().stored
            await until(lambda least=stored: topics.stats().stored > least + 200)  # type: ignore[misc]
            await stored_hub.restart()
        await publishing
        assert numbers_of(await reading) == list(range(count))
        assert topics.stats().connections >= 4
        assert numbers_of(await take(topics.subscribe("t"), count)) == list(range(count))


@on_loop
async def test_a_client_goes_on_at_the_other_address_when_one_node_is_lost(hub: Hub) -> None:
    events: list[Event] = []
    async with Topics(hub.url) as writer, CutProxy(hub.port, 1, (1 << 59, 1 << 60), 0) as one:
        async with CutProxy(hub.port, 2, (1 << 59, 1 << 60), 0) as other:
            topics = Topics([one.url, other.url], reconnect=QUICK, on_event=events.append)
            await topics.__aenter__()
            subscription = topics.subscribe("t")
            await publish_numbers(writer, "t", range(100))
            assert numbers_of(await take(subscription, 100)) == list(range(100))
            await publish_numbers(topics, "u", range(100))
        await publish_numbers(writer, "t", range(100, 200))
        assert numbers_of(await take(subscription, 100)) == list(range(100, 200))
        await publish_numbers(topics, "u", range(100, 200))
        assert numbers_of(await take(writer.subscribe("u"), 200)) == list(range(200))
        await topics.close()
    urls = {event.url for event in events if isinstance(event, Connected)}
    assert one.url in urls


@on_loop
async def test_another_log_under_the_same_address_is_told_as_a_gap(hub: Hub) -> None:
    async with Topics(hub.url, reconnect=QUICK) as topics:
        subscription = topics.subscribe("t")
        await publish_numbers(topics, "t", range(10))
        await take(subscription, 10)
        before = subscription.position
        await hub.restart()
        await topics.publish("t", "new")
        gap = await subscription.recv()
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.after) == ("another log", 10)
        assert subscription.position == gap.position
        assert before is not None
        assert gap.position.log != before.log
        message = await subscription.recv()
        assert isinstance(message, Message)
        assert (message.data, message.offset) == ("new", 1)


@on_loop
async def test_a_saved_position_of_a_log_that_was_replaced_leads_to_a_gap_and_all_of_the_new_log(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "log"
    hub = Hub("--store", str(path)).start()
    try:
        async with Topics(hub.url) as topics:
            await publish_numbers(topics, "t", range(5))
            subscription = topics.subscribe("t")
            await take(subscription, 5)
            saved = str(subscription.position)
        hub.kill()
        shutil.rmtree(path)
        hub.start()
        async with Topics(hub.url) as topics:
            await publish_numbers(topics, "t", range(100, 108))
            late = topics.subscribe("t", after=saved)
            gap = await late.recv()
            assert isinstance(gap, Gap)
            assert (gap.reason, gap.after) == ("another log", 5)
            assert numbers_of(await take(late, 8)) == list(range(100, 108))
    finally:
        hub.stop()


@on_loop
async def test_what_retention_removed_before_it_was_read_is_told_as_a_gap() -> None:
    hub = Hub("--max-bytes", "300000").start()
    try:
        async with Topics(hub.url) as topics:
            slow = topics.subscribe("t", window=262_144)
            await topics.publish("t", "first")
            assert isinstance(await slow.recv(), Message)
            place = slow.position
            for _ in range(100):
                await topics.publish("t", bytes(20_000))
            late = topics.subscribe("t", after=place)
            gap = await late.recv()
            assert isinstance(gap, Gap)
            assert (gap.reason, gap.after) == ("removed", 1)
            following = await late.recv()
            assert isinstance(following, Message)
            assert following.offset == gap.through + 1
            # Whoever was subscribed all the time gets each message, or a gap in its place.
            place = slow.position
            assert place is not None
            at = place.offset
            while at < 101:
                delivery = await slow.recv()
                if isinstance(delivery, Gap):
                    assert delivery.after == at
                    at = delivery.through
                else:
                    assert isinstance(delivery, Message)
                    assert delivery.offset == at + 1
                    at += 1
    finally:
        hub.stop()


@on_loop
async def test_without_a_node_the_client_waits_longer_and_longer_and_says_so() -> None:
    events: list[Event] = []
    async with Topics("ws://127.0.0.1:9/topics", on_event=events.append, reconnect=QUICK):
        await until(lambda: len(events) >= 5)
    assert all(isinstance(event, Disconnected) for event in events)
    waits = [event.again_in for event in events if isinstance(event, Disconnected)]
    assert all(wait is not None and wait <= 0.2 for wait in waits[:5])


@on_loop
async def test_a_client_that_may_try_so_often_gives_up_and_tells_everybody() -> None:
    from unstall.topics import SubscriptionError

    once = Reconnect(first=0.01, longest=0.01, attempts=3)
    async with Topics("ws://127.0.0.1:9/topics", reconnect=once) as topics:
        subscription = topics.subscribe("t")
        with pytest.raises(PublishError) as error:
            await topics.publish("t", "x")
        assert error.value.reason == "not sent"
        with pytest.raises(SubscriptionError, match="no connection"):
            await subscription.recv()


@on_loop
async def test_a_message_whose_fate_is_unknown_is_told_as_such(hub: Hub) -> None:
    """The answers are lost, and the client ends before it can ask again."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards everything to the hub, and from the hub until something was published."""
        back, there = await asyncio.open_connection("127.0.0.1", hub.port)

        async def up() -> None:
            while data := await reader.read(65_536):
                there.write(data)

        async def down() -> None:
            while data := await back.read(65_536):
                if not published.is_set():
                    writer.write(data)

        ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            writer.transport.abort()
            there.transport.abort()

    published = asyncio.Event()
    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/topics"
    async with Topics(hub.url) as other:
        seen = other.subscribe("t")
        async with Topics(url) as topics:
            await until(lambda: topics.stats().connections == 1)
            published.set()
            publishing = asyncio.ensure_future(topics.publish("t", "perhaps"))
            assert isinstance(await seen.recv(), Message)
            await topics.close(0.1)
            with pytest.raises(PublishError) as error:
                await publishing
            assert (error.value.reason, error.value.may_be_stored) == ("no answer", True)
            assert topics.stats().unknown == 1
    server.close()
    await asyncio.sleep(0.05)


@on_loop
async def test_a_consumer_that_stops_stalls_its_own_subscription_alone(hub: Hub) -> None:
    async with Topics(hub.url, window=262_144) as topics:
        stopped = topics.subscribe("t")
        for _ in range(100):
            await topics.publish_many([("t", bytes(10_000))] * 10)
        await until(lambda: stopped.stats().credit_bytes < 20_000)
        assert stopped.stats().waiting_bytes <= 262_144
        going = topics.subscribe("t")
        assert len(await take(going, 1_000)) == 1_000
        assert stopped.stats().waiting_bytes <= 262_144
        assert len(await take(stopped, 1_000)) == 1_000


@on_loop
async def test_nothing_is_written_to_a_connection_that_has_failed(hub: Hub) -> None:
    """Once asyncio warned of packets that were written after the socket had failed, in the same turn."""
    warnings: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("asyncio").addHandler(listener)
    async with Topics(hub.url, reconnect=QUICK) as topics:
        await topics.publish("t", "0")
        keeper = topics._keeper
        link = keeper._link
        assert link is not None
        publishing = asyncio.ensure_future(topics.publish_many([("t", bytes(30_000))] * 20))
        # In this turn the messages are accepted; they go out in the next one.
        await asyncio.sleep(0)
        assert keeper.core.publisher.waiting
        link.transport.abort()
        keeper._send()
        assert len(await publishing) == 20
    logging.getLogger("asyncio").removeHandler(listener)
    assert warnings == []
