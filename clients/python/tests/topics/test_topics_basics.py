"""What topics promise, against a real hub."""

from __future__ import annotations

import asyncio
import gc
from datetime import datetime, timezone

import pytest
from support import Hub, numbers_of, on_loop, publish_numbers, take, until

from unstall.topics import (
    CaughtUp,
    Connected,
    Message,
    Position,
    PublishError,
    Stored,
    SubscriptionError,
    Topics,
)


@on_loop
async def test_each_message_comes_once_and_in_order(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await publish_numbers(topics, "t", range(1_000))
        messages = await take(topics.subscribe("t"), 1_000)
    assert numbers_of(messages) == list(range(1_000))
    assert [message.offset for message in messages] == list(range(1, 1_001))
    assert {message.topic for message in messages} == {"t"}
    assert abs(messages[0].stored_at.timestamp() - datetime.now(timezone.utc).timestamp()) < 60


@on_loop
async def test_history_and_what_is_published_now_are_one_stream(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await publish_numbers(topics, "t", range(500))
        subscription = topics.subscribe("t", caught_up=True)
        publishing = asyncio.ensure_future(publish_numbers(topics, "t", range(500, 1_000)))
        deliveries = [await subscription.recv() for _ in range(1_001)]
        await publishing
    marks = [delivery for delivery in deliveries if isinstance(delivery, CaughtUp)]
    assert len(marks) == 1
    assert numbers_of([d for d in deliveries if isinstance(d, Message)]) == list(range(1_000))


@on_loop
async def test_a_message_keeps_its_kind_and_its_bytes(hub: Hub) -> None:
    sent: list[str | bytes] = [
        "",
        b"",
        "grüße",
        bytes(range(256)),
        "é" * 40_000,
        b"\xff" * 65_536,
        b"\x00" * 65_537,
        b"x" * 1_000_000,
    ]
    async with Topics(hub.url) as topics:
        results = await topics.publish_many([("t", data) for data in sent])
        assert [result.offset for result in results if isinstance(result, Stored)] == list(range(1, 9))
        got = await take(topics.subscribe("t"), len(sent))
    assert [message.data for message in got] == sent


@on_loop
async def test_bytes_like_objects_are_published_as_binary(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await topics.publish("t", bytearray(b"one"))
        await topics.publish("t", memoryview(b"two"))
        got = await take(topics.subscribe("t"), 2)
    assert [message.data for message in got] == [b"one", b"two"]


@on_loop
async def test_a_subscription_to_one_topic_ends_behind_its_final_message(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await topics.publish("answer.1", "the")
        await topics.publish("answer.1", "end", final=True)
        await topics.publish("answer.1", "later")
        subscription = topics.subscribe("answer.1")
        got = [delivery async for delivery in subscription]
        assert [(m.data, m.final) for m in got if isinstance(m, Message)] == [("the", False), ("end", True)]
        assert await subscription.recv() is None
        assert subscription.position == got[-1].position
        assert topics.stats().subscriptions == 0


@on_loop
async def test_a_filter_brings_the_topics_that_it_matches(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        for topic in ("a.b", "a.b.c", "a", "b.b", "a.c"):
            await topics.publish(topic, topic)
        for pattern, expected in {
            "a.*": ["a.b", "a.c"],
            "a.>": ["a.b", "a.b.c", "a.c"],
            ">": ["a.b", "a.b.c", "a", "b.b", "a.c"],
            "*.b": ["a.b", "b.b"],
        }.items():
            got = await take(topics.subscribe(pattern), len(expected))
            assert [message.topic for message in got] == expected


@on_loop
async def test_every_start_begins_where_it_says(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await publish_numbers(topics, "p.a", range(5))
        await publish_numbers(topics, "p.b", range(5, 7))
        all_of_them = await take(topics.subscribe("p.*"), 7)
        assert numbers_of(await take(topics.subscribe("p.*", start="beginning"), 7)) == list(range(7))
        assert numbers_of(await take(topics.subscribe("p.*", last=3), 3)) == [4, 5, 6]
        assert numbers_of(await take(topics.subscribe("p.a", last=100), 5)) == [0, 1, 2, 3, 4]
        assert numbers_of(await take(topics.subscribe("p.*", start="latest"), 2)) == [4, 6]
        behind = topics.subscribe("p.*", after=all_of_them[3].position)
        assert numbers_of(await take(behind, 3)) == [4, 5, 6]
        since = topics.subscribe("p.*", since=all_of_them[0].stored_at)
        assert numbers_of(await take(since, 7)) == list(range(7))
        late = topics.subscribe("p.*", since=all_of_them[-1].time + 1, caught_up=True)
        assert isinstance(await late.recv(), CaughtUp)
        now = topics.subscribe("p.*", start="now", caught_up=True)
        mark = await now.recv()
        assert isinstance(mark, CaughtUp)
        assert mark.position.offset == 7
        await topics.publish("p.a", "7")
        assert numbers_of(await take(now, 1)) == [7]


@on_loop
async def test_a_position_as_text_goes_on_in_another_client(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await publish_numbers(topics, "t", range(10))
        subscription = topics.subscribe("t")
        await take(subscription, 4)
        saved = str(subscription.position)
    assert Position.parse(saved) == subscription.position
    async with Topics([hub.url]) as topics:
        assert numbers_of(await take(topics.subscribe("t", after=saved), 6)) == list(range(4, 10))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1:2:3",
        f"{'00' * 16}:1",
        f"{'00' * 16}:+1:2",
        f"{'0g' * 16}:1:2",
        f"{'00' * 16}:{1 << 62}:0",
        f"{'00' * 16}:1:2:3",
        f"{'00' * 17}:1:2",
        f"{' 0' * 16}:1:2",
        f"{'00' * 16}:\u0661:2",
    ],
)
def test_a_text_that_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(text)


@on_loop
async def test_what_one_client_publishes_another_one_receives(hub: Hub) -> None:
    async with Topics(hub.url) as one, Topics(hub.url) as other:
        subscription = one.subscribe("t")
        for number in range(20):
            stored = await other.publish("t", str(number))
            message = await subscription.recv()
            assert isinstance(message, Message)
            assert (message.offset, message.data) == (stored.offset, str(number))


@on_loop
async def test_many_publish_at_once_and_each_gets_its_own_offset(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        stored = await asyncio.gather(*[topics.publish("t", str(n)) for n in range(2_000)])
        got = await take(topics.subscribe("t"), 2_000)
    by_offset = {message.offset: message.data for message in got}
    assert [by_offset[one.offset] for one in stored if one.offset] == [str(n) for n in range(2_000)]


@on_loop
async def test_publishing_waits_for_room_and_keeps_the_order(hub: Hub) -> None:
    async with Topics(hub.url, publish_window=262_144) as topics:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, topics.stats().unanswered_bytes)
                await asyncio.sleep(0)

        watching = asyncio.ensure_future(watch())
        await asyncio.gather(
            *[topics.publish_many([("t", f"{n}.{at}".ljust(2_000)) for at in range(100)]) for n in range(20)]
        )
        watching.cancel()
        got = await take(topics.subscribe("t"), 2_000)
    assert 200_000 < most <= 262_144
    assert [str(m.data).strip() for m in got] == [f"{n}.{at}" for n in range(20) for at in range(100)]


@on_loop
async def test_a_message_that_cannot_be_published_says_why_and_the_others_are_stored(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        with pytest.raises(PublishError, match="invalid topic") as error:
            await topics.publish("not a topic", "x")
        assert (error.value.reason, error.value.may_be_stored) == ("invalid topic", False)
        with pytest.raises(PublishError, match="too large"):
            await topics.publish("t", bytes(20 << 20))
        with pytest.raises(ValueError, match="surrogates"):
            await topics.publish("t", "\ud800")
        results = await topics.publish_many([("t", "1"), ("*", "x"), ("t", "2")])
        assert [isinstance(result, Stored) for result in results] == [True, False, True]
        assert numbers_of(await take(topics.subscribe("t"), 2)) == [1, 2]


@on_loop
async def test_wrong_arguments_are_told_at_once(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        with pytest.raises(ValueError, match="is not a filter"):
            topics.subscribe("a..b")
        with pytest.raises(ValueError, match="one start"):
            topics.subscribe("t", last=1, since=5)
        with pytest.raises(ValueError, match="one start"):
            topics.subscribe("t", start="now", last=3)
        with pytest.raises(ValueError, match="not a position"):
            topics.subscribe("t", after="nonsense")
        with pytest.raises(ValueError, match="max_lag"):
            topics.subscribe("t", max_lag=-1)
    with pytest.raises(RuntimeError, match="async with"):
        Topics(hub.url).subscribe("t")
    with pytest.raises(ValueError, match="no address"):
        Topics([])


@on_loop
async def test_the_end_of_the_client_ends_its_subscriptions_and_publishers(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        subscription = topics.subscribe("t")
        await topics.publish("t", "there")
        waiting = asyncio.ensure_future(take(subscription, 2))
        await asyncio.sleep(0.05)
        await topics.close()
        with pytest.raises(SubscriptionError, match="closed"):
            await waiting
        with pytest.raises(SubscriptionError):
            await subscription.recv()
        with pytest.raises(PublishError) as error:
            await topics.publish("t", "late")
    assert (error.value.reason, error.value.may_be_stored) == ("not sent", False)


@on_loop
async def test_leaving_waits_for_the_answers_to_what_was_published(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        publishing = [asyncio.ensure_future(topics.publish("t", str(n))) for n in range(100)]
        await asyncio.sleep(0)
    assert [(await one).offset for one in publishing] == list(range(1, 101))


@on_loop
async def test_a_close_with_a_deadline_tells_what_became_of_each_message() -> None:
    async with Topics("ws://127.0.0.1:9") as topics:
        publishing = asyncio.ensure_future(topics.publish("t", "never"))
        await asyncio.sleep(0.05)
        begun = asyncio.get_running_loop().time()
        await topics.close(0.2)
        assert 0.15 < asyncio.get_running_loop().time() - begun < 2
    with pytest.raises(PublishError) as error:
        await publishing
    assert (error.value.reason, error.value.may_be_stored) == ("not sent", False)


@on_loop
async def test_a_subscription_that_nobody_holds_ends(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await publish_numbers(topics, "t", range(10))
        async for _ in topics.subscribe("t"):
            break
        gc.collect()
        await until(lambda: topics.stats().subscriptions == 0)
        with topics.subscribe("t") as subscription:
            await take(subscription, 3)
        assert topics.stats().subscriptions == 0
        assert await subscription.recv() is None
        await until(lambda: not topics._keeper.core.subscriptions)


@on_loop
async def test_a_subscription_has_one_receiver_at_a_time(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        subscription = topics.subscribe("t")
        first = asyncio.ensure_future(subscription.recv())
        await asyncio.sleep(0.02)
        with pytest.raises(RuntimeError, match="another task"):
            await subscription.recv()
        await topics.publish("t", "1")
        assert isinstance(await first, Message)


@on_loop
async def test_events_and_stats_tell_how_the_client_stands(hub: Hub) -> None:
    events: list[object] = []
    async with Topics(hub.url, on_event=events.append) as topics:
        assert topics.stats().log is None
        stored = await topics.publish("t", "x" * 1_000)
        await publish_numbers(topics, "t", range(9))
        stats = topics.stats()
        assert (stats.connections, stats.stored, stats.unanswered) == (1, 10, 0)
        assert stats.log == stored.log
        subscription = topics.subscribe("t")
        await take(subscription, 4)
        standing = subscription.stats()
        assert (standing.messages, standing.lag) == (4, 6)
        assert 0 < standing.credit_bytes < 1 << 20
        await take(subscription, 6)
        assert (subscription.stats().messages, subscription.stats().lag) == (10, 0)
    connected = events[0]
    assert isinstance(connected, Connected)
    assert (connected.url, connected.log) == (hub.url, stored.log)


@on_loop
async def test_everything_that_is_there_comes_in_one_call(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await publish_numbers(topics, "t", range(3_000), size=1_000)
        await topics.publish("t", "3000", final=True)
        subscription, got, calls = topics.subscribe("t"), [], 0
        while some := await subscription.recv_batch():
            got += some
            calls += 1
    assert numbers_of([m for m in got if isinstance(m, Message)]) == list(range(3_001))
    assert calls < 300


@on_loop
async def test_a_consumer_that_lags_is_moved_ahead_if_it_asks_for_it(hub: Hub) -> None:
    async with Topics(hub.url) as topics:
        await publish_numbers(topics, "t", range(10))
        await asyncio.sleep(0.3)
        subscription = topics.subscribe("t", max_lag=0.1)
        gap = await subscription.recv()
        assert gap is not None
        assert not isinstance(gap, Message | CaughtUp)
        assert (gap.reason, gap.after, gap.through) == ("moved ahead", 0, 10)
        await topics.publish("t", "10")
        assert numbers_of(await take(subscription, 1)) == [10]
