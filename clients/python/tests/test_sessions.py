"""A session delivers each message once and in order, whatever happens to its connections."""

from __future__ import annotations

import asyncio
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import unstall
from harness import Proxy, Serve, until
from unstall._core.incoming import Incoming

Run = Callable[..., Any]


async def echo_many(session: unstall.Session, count: int, size: int = 64) -> None:
    """Sends numbered messages to an echo and counts what comes back: N of N, in order."""

    async def send() -> None:
        for number in range(count):
            await session.send(struct.pack(">Q", number) + bytes(size - 8))

    sending = asyncio.ensure_future(send())
    try:
        for number in range(count):
            message = await session.recv()
            assert isinstance(message, bytes), message
            assert len(message) == size
            assert struct.unpack_from(">Q", message) == (number,)
    finally:
        sending.cancel()
    await session.delivered()


def test_text_and_binary_come_back_as_they_were(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with unstall.connect(serve.url + "/echo") as session:
            assert session.is_session
            messages: list[str | bytes] = ["", b"", "grüße 🦀", b"\x00\xff", "x" * 70_000, bytes(1_000_000)]
            for message in messages:
                await session.send(message)
            assert [await session.recv() for _ in messages] == messages
            await session.send(bytearray(b"array"))
            await session.send(memoryview(b"view"))
            assert await session.recv_batch() == [b"array", b"view"]
            await session.delivered()
            assert session.stats().unacknowledged_bytes == 0

    run(main())


def test_cuts_at_seeded_bytes_lose_and_double_nothing(serve: Serve, run: Run, seeds: list[int]) -> None:
    async def main(seed: int) -> None:
        draw = random.Random(seed)
        async with Proxy(serve.port) as proxy:
            proxy.cuts = [draw.choice([draw.randint(1, 700), draw.randint(1, 300_000)]) for _ in range(25)]
            session = await connected(proxy.url + "/echo")
            await echo_many(session, 20_000)
            assert proxy.accepted > 10, f"seed {seed}: the proxy has cut"
            assert session.stats().resumes > 5, f"seed {seed}"
            assert (await session.close()).clean

    for seed in seeds:
        run(main(seed))


async def connected(url: str, **options: Any) -> unstall.Session:
    """The first connection may be cut as well."""
    reconnect = unstall.Reconnect(first=0.01, longest=0.05)
    while True:
        try:
            return await unstall.connect(url, reconnect=reconnect, **options)
        except unstall.ConnectError as error:
            if not error.retryable:
                raise


def test_a_frozen_connection_is_noticed_and_replaced(serve: Serve, run: Run) -> None:
    async def main() -> None:
        events: list[unstall.Event] = []
        async with Proxy(serve.port) as proxy:
            session = await connected(
                proxy.url + "/echo", ping_interval=0.1, silence_timeout=0.4, on_event=events.append
            )
            await echo_many(session, 100)
            proxy.freeze()
            await session.send("in the dark")
            await until(lambda: any(isinstance(e, unstall.Disconnected) for e in events), "it is noticed")
            lost = next(e for e in events if isinstance(e, unstall.Disconnected))
            assert "nothing was received from the peer for 0.4 s" in str(lost.why)
            proxy.thaw()
            assert await session.recv() == "in the dark"
            assert (await session.close()).clean

    run(main())


def test_a_program_that_is_busy_does_not_lose_its_connection(serve: Serve, run: Run) -> None:
    """Once the connection was given up when the event loop had stood still for the silence timeout, although
    the peer had been asked nothing."""

    async def main() -> None:
        async with unstall.connect(serve.url, ping_interval=0.1, silence_timeout=0.4) as session:
            await asyncio.sleep(0.15)
            for _ in range(3):
                time.sleep(1)  # noqa: ASYNC251 - the event loop stands still
                await asyncio.sleep(0.1)
            await session.send("still there")
            assert await session.recv() == "still there"
            assert session.stats().connections == 1

    run(main())


def test_refused_connections_are_tried_again(serve: Serve, run: Run) -> None:
    async def main() -> None:
        events: list[unstall.Event] = []
        async with Proxy(serve.port) as proxy:
            session = await connected(proxy.url + "/echo", on_event=events.append)
            proxy.refuses = True
            proxy.cut()
            await session.send("wait for it")
            await until(lambda: sum(isinstance(e, unstall.AttemptFailed) for e in events) >= 3, "it tries")
            proxy.refuses = False
            assert await session.recv() == "wait for it"
            assert (await session.close()).clean

    run(main())


def test_a_restarted_server_is_a_gap_and_messages_come_back(
    own_serve: Callable[..., Serve], run: Run
) -> None:
    async def main() -> None:
        server = own_serve()
        session = await connected(server.url + "/sink")
        await session.send("kept until the server says that it has it")
        server.kill()
        await session.send("never sent")
        server.start()
        gap = await session.recv()
        assert isinstance(gap, unstall.Gap)
        assert isinstance(gap.why, unstall.SessionLost)
        assert gap.why.cause == "unknown"
        back = session.take_undelivered()
        assert back[-1].message == "never sent"
        await session.send('{"report":true}')
        assert isinstance(await session.recv(), str)
        assert session.take_undelivered() == []
        assert (await session.close()).clean

    run(main())


def test_without_fresh_sessions_a_lost_one_is_the_end(own_serve: Callable[..., Serve], run: Run) -> None:
    """Once a program that echoes sent what the lost session had left into the next one, before it met the
    gap: the hole in what it sent was seen before it was told."""

    async def main() -> None:
        server = own_serve()
        session = await connected(server.url + "/echo", fresh_sessions=False)
        for number in range(5):
            await session.send(str(number))
        incoming = session._keeper.session().core.incoming  # type: ignore[union-attr]
        await until(lambda: incoming.received[0] == 5, "the echoes are there")
        server.kill()
        await session.send("not delivered")
        server.start()
        await until(lambda: session.is_closed, "it ends")
        assert [await session.recv() for _ in range(5)] == ["0", "1", "2", "3", "4"]
        with pytest.raises(unstall.Closed):
            await session.send("5")
        with pytest.raises(unstall.SessionLost, match="the server was restarted"):
            await session.recv()
        assert session.take_undelivered()[-1].message == "not delivered"

    run(main())


def test_a_hundred_thousand_packets_with_a_consumer_that_stops_and_goes(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with unstall.connect(serve.url + "/packets", window=1 << 20) as session:
            await session.send('{"count":100000,"size":128}')
            most = 0
            for number in range(100_000):
                if number % 10_000 == 0:
                    # The consumer stops for as long as the server needs to fill the window.
                    await asyncio.sleep(0.05)
                packet = await session.recv()
                assert isinstance(packet, bytes)
                assert struct.unpack_from(">Q", packet) == (number,)
                most = max(most, session.stats().unread_bytes)
            assert await session.recv() == '{"done":100000}'
            assert 256 << 10 < most <= 1 << 20, most

    run(main())


@pytest.mark.parametrize("size", [16, 1_000, 60_000])
def test_a_consumer_that_stops_costs_a_window_and_no_more(serve: Serve, size: int) -> None:
    window = 1 << 20
    program = Path(__file__).with_name("stopped_consumer.py")
    command = [sys.executable, str(program), serve.url + "/packets", str(size), str(window)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 2 * window, (ended.stdout, ended.stderr)


def test_send_waits_for_room_and_memory_stays_bounded(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with Proxy(serve.port) as proxy:
            replay = 3 << 20
            options = {"replay": replay, "max_message": 1 << 20, "outbox": 8 << 20}
            session = await connected(proxy.url + "/echo", **options)
            proxy.freeze()
            sent = 0

            async def send() -> None:
                nonlocal sent
                while True:
                    await session.send(bytes(10_000))
                    sent += 1

            sending = asyncio.ensure_future(send())
            await until(lambda: session.stats().unacknowledged_bytes > replay - 10_100, "the replay is full")
            await asyncio.sleep(0.05)
            assert session.stats().unacknowledged_bytes <= replay
            assert not sending.done()
            proxy.thaw()
            for _ in range(sent + 50):
                assert await session.recv() == bytes(10_000)
            assert sent > replay // 10_064, "the sender goes on once there is room"
            sending.cancel()
            session.abort()

    run(main())


def test_acknowledgement_by_hand_counts_what_was_processed(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with unstall.connect(serve.url + "/echo", acknowledge_by_hand=True) as session:
            for number in range(5):
                await session.send(str(number))
            assert [await session.recv() for _ in range(3)] == ["0", "1", "2"]
            third = session.position
            assert [await session.recv() for _ in range(2)] == ["3", "4"]
            core = session._keeper.session().core  # type: ignore[union-attr]
            assert core.incoming.ready == (0, 0)
            session.acknowledge(third)
            assert core.incoming.ready[0] == 3
            session.acknowledge()
            assert core.incoming.ready[0] == 5
            await until(lambda: core.incoming.told[0] == 5, "the peer is told")

    run(main())


def test_without_acknowledgement_by_hand_there_is_none(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with unstall.connect(serve.url + "/echo") as session:
            with pytest.raises(RuntimeError, match="acknowledge_by_hand"):
                session.acknowledge()

    run(main())


def test_a_slow_consumer_acknowledges_each_message_soon(serve: Serve, run: Run) -> None:
    """Messages of one packet are handed over together; what the application has not asked for does not count
    as received, and what it has received counts within a moment."""

    async def main() -> None:
        async with unstall.connect(serve.url + "/packets") as session:
            await session.send('{"count":100,"size":16}')
            for number in range(1, 4):
                await session.recv()
                incoming = session._keeper.session().core.incoming  # type: ignore[union-attr]
                await until(partial(told, incoming, number), f"{number} is acknowledged", 1.0)

    run(main())


def told(incoming: Incoming, number: int) -> bool:
    return incoming.told[0] == number


def test_close_gives_back_what_was_not_delivered(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with Proxy(serve.port) as proxy:
            session = await connected(proxy.url + "/sink")
            proxy.refuses = True
            proxy.cut()
            await session.send("one")
            await session.send(b"two")
            started = asyncio.get_running_loop().time()
            report = await session.close(within=0.3)
            assert asyncio.get_running_loop().time() - started < 2
            assert not report.clean
            assert [back.message for back in report.undelivered] == ["one", b"two"]
            assert isinstance(report.why, unstall.SessionLost)
            assert report.why.cause == "close timed out"

    run(main())


def test_leaving_the_block_with_undelivered_messages_raises(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with Proxy(serve.port) as proxy:

            async def leave() -> None:
                async with unstall.connect(proxy.url + "/sink", close_timeout=0.2) as session:
                    proxy.refuses = True
                    proxy.cut()
                    await until(lambda: session._keeper._link is None, "the loss is noticed")
                    await session.send("lost")

            with pytest.raises(unstall.Undelivered, match="1 accepted message came back") as caught:
                await leave()
            assert caught.value.messages == [unstall.Returned("lost", False)]

    run(main())


def test_closing_with_messages_that_nobody_receives_does_not_wait(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with unstall.connect(serve.url + "/packets") as session:
            await session.send('{"count":50000,"size":100}')
            await session.recv()
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 2

    run(main())


def test_another_task_receives_everything_while_this_one_closes(serve: Serve, run: Run) -> None:
    async def main() -> None:
        session = await unstall.connect(serve.url + "/echo")
        received: list[object] = []

        async def receive() -> None:
            async for message in session:
                await asyncio.sleep(0.001)
                received.append(message)

        receiving = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        for number in range(100):
            await session.send(str(number))
        incoming = session._keeper.session().core.incoming  # type: ignore[union-attr]
        await until(lambda: incoming.received[0] == 100, "all have arrived")
        assert len(received) < 100
        assert (await session.close()).clean
        await receiving
        assert received == [str(number) for number in range(100)]

    run(main())


def test_after_the_end_nothing_is_accepted_and_the_iteration_ends(serve: Serve, run: Run) -> None:
    async def main() -> None:
        session = await unstall.connect(serve.url + "/echo")
        assert (await session.close()).clean
        assert session.is_closed
        with pytest.raises(unstall.Closed):
            await session.send("late")
        with pytest.raises(unstall.Closed):
            await session.recv()
        assert [message async for message in session] == []
        assert await session.recv_batch() == []
        assert (await session.close()).undelivered == []

    run(main())


def test_a_server_that_closes_ends_the_iteration(own_serve: Callable[..., Serve], run: Run) -> None:
    async def main() -> None:
        server = own_serve()
        session = await unstall.connect(server.url + "/echo", reconnect=None)
        await session.send("before")
        assert await session.recv() == "before"
        server.process.terminate()
        assert [message async for message in session] == []
        assert (await session.close()).clean

    run(main())


def test_events_tell_the_story(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with Proxy(serve.port) as proxy:
            session = await connected(proxy.url + "/echo")
            await echo_many(session, 10)
            proxy.cut()
            await session.send("again")
            await session.recv()
            await session.close()
            names = [type(event).__name__ async for event in session.events()]
            assert names == [
                "Connected",
                "SessionOpened",
                "Disconnected",
                "Reconnecting",
                "Connected",
                "Resumed",
                "Disconnected",
                "Ended",
            ]

    run(main())


def test_a_message_that_is_too_large_is_refused_and_nothing_else_happens(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with unstall.connect(serve.url + "/echo", max_message=100_000, replay=1 << 20) as session:
            with pytest.raises(
                unstall.MessageTooLarge, match="100001 bytes is larger than the limit of 100000"
            ):
                await session.send(bytes(100_001))
            await session.send(bytes(100_000))
            assert await session.recv() == bytes(100_000)

    run(main())
