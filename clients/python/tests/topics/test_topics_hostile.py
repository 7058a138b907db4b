"""A hub that breaks the protocol, or never ends: an error, bounded memory, and no task left behind."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from support import Hub, on_loop, take, until
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from unstall import Reconnect
from unstall._core.topics.packet import KINDS, encode
from unstall._core.topics.records import Record
from unstall.topics import Disconnected, Event, PublishError, Subscription, SubscriptionError, Topics

QUICK = Reconnect(first=0.01, longest=0.05)
WELCOME = {
    "kind": "WELCOME", "log": b"\x10" * 16, "first": 1, "last": 0, "largest_message": 1 << 20,
    "publish_window": 1 << 20, "once": 0, "subscriptions": 10, "durability": 0, "name": "hostile\x1b[31m",
}  # fmt: skip
SUBSCRIBED = {"kind": "SUBSCRIBED", "subscription": 1, "after": 0, "time": 0, "end": 0, "end_time": 0}
Talk = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def hostile(*talks: Talk) -> AsyncIterator[str]:
    """A hub that talks so on its connections, one after the other; the last one again and again."""
    left = list(talks)

    async def answer(connection: ServerConnection) -> None:
        talk = left.pop(0) if len(left) > 1 else left[0]
        with suppress(ConnectionClosed):
            await talk(connection)

    async with serve(answer, "127.0.0.1", 0, subprotocols=["unstall.topics.v1"], compression=None) as server:  # type: ignore[list-item]
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/topics"


async def hear(connection: ServerConnection, name: str) -> None:
    """Waits for such a packet of the client."""
    while True:
        packet = await connection.recv()
        assert isinstance(packet, bytes)
        if packet[0] == KINDS[name]:
            return


def saying(*packets: dict[str, object] | bytes | str, after: str = "HELLO") -> Talk:
    """Hears a packet, says these, and waits for the client to leave."""

    async def talk(connection: ServerConnection) -> None:
        await hear(connection, after)
        for packet in packets:
            await connection.send(encode(packet) if isinstance(packet, dict) else packet)
        async for _ in connection:
            pass

    return talk


def message(offset: int, payload: bytes, continues: bool = False, first: bool = True) -> dict[str, object]:
    record = Record(False, continues, False, payload, *((b"t", offset, 5) if first else (None, None, None)))
    return {"kind": "MESSAGES", "subscription": 1, "records": [record]}


BROKEN: dict[str, list[dict[str, object] | bytes | str]] = {
    "MALFORMED by text": [WELCOME, "text"],
    "MALFORMED by an empty packet": [WELCOME, b""],
    "MALFORMED by a packet that is cut short": [WELCOME, b"\x21\x00"],
    "MALFORMED by MESSAGES without a subscription": [WELCOME, SUBSCRIBED, b"\x22\x00\x00"],
    "MALFORMED by MESSAGES without records": [WELCOME, SUBSCRIBED, b"\x22\x00\x00\x00\x01"],
    "MALFORMED by a record that is cut short": [WELCOME, SUBSCRIBED, b"\x22\x00\x00\x00\x01\x40"],
    "UNKNOWN_KIND": [WELCOME, b"\x7f"],
    "UNEXPECTED by a second welcome": [WELCOME, WELCOME],
    "UNEXPECTED before the welcome": [SUBSCRIBED],
    "UNEXPECTED by a packet of the client": [WELCOME, b"\x26\x00\x00\x00\x01"],
    "UNEXPECTED by a subscription that is not there": [WELCOME, {**SUBSCRIBED, "subscription": 7}],
    "UNEXPECTED by messages before SUBSCRIBED": [WELCOME, message(1, b"x")],
    "INCONSISTENT by a place behind the end": [WELCOME, {**SUBSCRIBED, "after": 5}],
    "INCONSISTENT by an offset again": [WELCOME, SUBSCRIBED, message(2, b"x"), message(2, b"x")],
    "INCONSISTENT by an answer to nothing": [
        WELCOME, {"kind": "PUBLISHED", "durability": 0, "first": 1, "runs": [(1, 1)]}],
    "INCONSISTENT by another topic": [
        WELCOME, SUBSCRIBED,
        {"kind": "MESSAGES", "subscription": 1, "records": [Record(False, False, False, b"", b"u", 1, 1)]}],
    "INVALID_TEXT": [
        WELCOME, SUBSCRIBED,
        {"kind": "MESSAGES", "subscription": 1,
         "records": [Record(True, False, False, b"\xff", b"t", 1, 0)]}],
}  # fmt: skip


async def end_of(subscription: Subscription) -> str:
    """The reason of the error with which it ends."""
    try:
        while await subscription.recv() is not None:
            pass
    except SubscriptionError as error:
        return error.reason
    return "no error"


@pytest.mark.parametrize("name", BROKEN)
@on_loop
async def test_a_hub_that_breaks_the_protocol_is_left_with_the_error_s_name(name: str) -> None:
    events: list[Event] = []
    async with hostile(saying(*BROKEN[name], after="SUBSCRIBE")) as url:
        async with Topics(url, reconnect=QUICK, on_event=events.append) as topics:
            subscription = topics.subscribe("t")
            await until(lambda: sum(isinstance(event, Disconnected) for event in events) >= 2)
            assert topics.stats().subscriptions == 1
        assert await end_of(subscription) == "client ended"
    errors = {event.why for event in events if isinstance(event, Disconnected)}
    assert errors == {f"the node broke the protocol ({name.split(' ')[0]})"}


@on_loop
async def test_the_client_goes_on_once_the_hub_keeps_to_the_protocol(hub: Hub) -> None:
    """Of two nodes one is broken: everything comes from the other."""
    async with hostile(saying(WELCOME, b"\x7f")) as bad, Topics([bad, hub.url], reconnect=QUICK) as topics:
        for number in range(5):
            await topics.publish("t", str(number))
        assert len(await take(topics.subscribe("t"), 5)) == 5


@on_loop
async def test_messages_beyond_the_credit_are_refused() -> None:
    async def flood(connection: ServerConnection) -> None:
        await hear(connection, "SUBSCRIBE")
        await connection.send(encode(WELCOME))
        await connection.send(encode(SUBSCRIBED))
        offset = 0
        while True:
            offset += 1
            await connection.send(encode(message(offset, bytes(30_000))))

    events: list[Event] = []
    async with hostile(flood) as url, Topics(url, reconnect=QUICK, on_event=events.append) as topics:
        subscription = topics.subscribe("t", window=262_144)
        await until(lambda: any(isinstance(event, Disconnected) for event in events))
        assert subscription.stats().waiting_bytes <= 262_144
        assert "CREDIT_EXCEEDED" in str(events)


@on_loop
async def test_a_message_without_an_end_is_refused_at_the_limit() -> None:
    async def endless(connection: ServerConnection) -> None:
        await hear(connection, "SUBSCRIBE")
        await connection.send(encode(WELCOME))
        await connection.send(encode(SUBSCRIBED))
        first = True
        while True:
            await connection.send(encode(message(1, bytes(65_536), continues=True, first=first)))
            first = False

    events: list[Event] = []
    tracemalloc.start()
    small = 4 << 20
    async with hostile(endless) as url, Topics(url, on_event=events.append, max_message=small) as topics:
        subscription = topics.subscribe("t")
        await until(lambda: any(isinstance(event, Disconnected) for event in events))
        assert subscription.stats().waiting_bytes == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "MESSAGE_TOO_LARGE" in str(events)
    assert peak < 24 << 20


@on_loop
async def test_a_websocket_message_without_an_end_is_refused_while_it_arrives() -> None:
    async def endless(connection: ServerConnection) -> None:
        async def fragments() -> AsyncIterator[bytes]:
            while True:
                yield bytes(10_000)

        await connection.send(fragments())

    events: list[Event] = []
    async with hostile(endless) as url, Topics(url, reconnect=QUICK, on_event=events.append):
        await until(lambda: any(isinstance(event, Disconnected) for event in events))


@on_loop
async def test_gaps_and_marks_without_end_take_no_memory() -> None:
    async def endless(connection: ServerConnection) -> None:
        await hear(connection, "SUBSCRIBE")
        await connection.send(encode(WELCOME))
        await connection.send(encode(SUBSCRIBED))
        for place in range(1, 20_001):
            await connection.send(
                encode(
                    {
                        "kind": "GAP",
                        "subscription": 1,
                        "reason": 1 + 3 * (place % 2),
                        "certain": 0,
                        "after": place - 1,
                        "through": place,
                    }
                )
            )
            await connection.send(
                encode({"kind": "CAUGHT_UP", "subscription": 1, "offset": place, "time": 0})
            )
            await connection.send(encode({"kind": "GOAWAY", "window": 86_400_000, "text": "again"}))
        async for _ in connection:
            pass

    async with hostile(endless) as url, Topics(url) as topics:
        subscription = topics.subscribe("t", caught_up=True)
        core = topics._keeper.core
        await until(lambda: (core.subscriptions[1].position or (0, 0, 0))[1] == 20_000, 30)
        assert len(core.subscriptions[1].items) == 3
        assert not core.events
        got = [await subscription.recv() for _ in range(3)]
        assert subscription.position is not None
        assert subscription.position.offset == 20_000
        assert {getattr(item, "reason", "mark") for item in got} == {"removed", "moved ahead", "mark"}


@on_loop
async def test_a_server_that_does_not_speak_topics_is_told() -> None:
    events: list[Event] = []

    async def plain(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(plain, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with Topics(url, reconnect=QUICK, on_event=events.append) as topics:
            with pytest.raises(PublishError, match="does not speak topics"):
                await topics.publish("t", "x")
    assert len(events) == 1


@on_loop
async def test_a_node_that_is_full_is_asked_again_when_it_said() -> None:
    reject = {"kind": "REJECT", "reason": 2, "retry_after": 300, "text": "come \x07 later"}
    events: list[Event] = []
    loop = asyncio.get_running_loop()
    async with hostile(saying(reject), saying(WELCOME)) as url:
        begun = loop.time()
        async with Topics(url, reconnect=QUICK, on_event=events.append) as topics:
            await until(lambda: topics.stats().connections == 1)
            assert loop.time() - begun >= 0.29
            assert topics.stats().node == r"hostile\x1b[31m"
    assert isinstance(events[0], Disconnected)
    assert events[0].why == r"the node rejects the client: full (come \x07 later)"


@on_loop
async def test_a_node_that_asks_its_clients_to_leave_is_left() -> None:
    away = {"kind": "GOAWAY", "window": 50, "text": "deploy"}
    events: list[Event] = []
    talks = saying(WELCOME, away), saying(WELCOME)
    async with hostile(*talks) as url, Topics(url, reconnect=QUICK, on_event=events.append) as topics:
        await until(lambda: topics.stats().connections == 2)
    assert [e.why for e in events if isinstance(e, Disconnected)] == [
        "the node asked the client to go elsewhere"
    ]


@on_loop
async def test_what_a_hub_says_is_safe_to_print() -> None:
    async def refuse(connection: ServerConnection) -> None:
        await hear(connection, "SUBSCRIBE")
        await connection.send(encode(WELCOME))
        await hear(connection, "PUBLISH")
        await connection.send(encode({"kind": "REFUSED", "number": 1, "reason": 1, "text": "no \x1b[2J"}))
        await connection.send(encode({"kind": "ENDED", "subscription": 1, "reason": 3, "text": "no \n!"}))
        await connection.wait_closed()

    async with hostile(refuse) as url, Topics(url) as topics:
        subscription = topics.subscribe("t")
        with pytest.raises(PublishError) as refused:
            await topics.publish("t", "x")
        assert r"no \x1b[2J" in str(refused.value)
        with pytest.raises(SubscriptionError) as ended:
            await subscription.recv()
        assert str(ended.value) == r"the subscription has ended, not allowed: no \n!"
