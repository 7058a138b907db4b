"""A hostile or broken server costs an error, and neither memory nor a task that is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

import unstall
from unstall._core.packet import Record, decode, encode

Run = Callable[..., Any]
Handler = Callable[[ServerConnection], Awaitable[None]]
ONCE = unstall.Reconnect(attempts=1)


def welcome(hello: dict[str, Any], **changes: Any) -> bytes:
    fields = {"kind": "WELCOME", "token": bytes(16), "epoch": 7, "generation": hello["generation"]}
    fields |= {"received": 0, "acked": 0, "credit": 1 << 20, "largest_message": 1 << 20, "life": 10_000}
    return encode(fields | changes)


def data(first: int, *records: Record) -> bytes:
    return encode({"kind": "DATA", "first": first, "records": records})


async def against(
    handler: Handler, then: Callable[[unstall.Session], Awaitable[None]], **options: Any
) -> None:
    """A session with a server that is this function."""

    async def serve_one(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await handler(connection)
            await connection.wait_closed()

    protocol = Subprotocol("unstall.v1")
    async with serve(serve_one, "127.0.0.1", 0, subprotocols=[protocol], compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with unstall.connect(f"ws://127.0.0.1:{port}", **options) as session:
            await then(session)


def after_welcome(*packets: bytes | str) -> Handler:
    async def handler(connection: ServerConnection) -> None:
        hello = await connection.recv()
        assert isinstance(hello, bytes)
        await connection.send(welcome(decode(hello)))
        for packet in packets:
            await connection.send(packet)

    return handler


@pytest.mark.parametrize(
    ("packets", "code"),
    [
        ([b""], "MALFORMED"),
        (["text"], "MALFORMED"),
        ([b"\x10"], "MALFORMED"),
        ([b"\x10" + bytes(8)], "MALFORMED"),
        ([b"\x10" + bytes(7) + b"\x01" + b"\xff" * 20], "MALFORMED"),
        ([b"\x7f"], "UNKNOWN_KIND"),
        ([b"\x11" + b"\xff" * 8], "INVALID_ACK"),
        ([data(1, Record(True, False, b"\xff"))], "INVALID_TEXT"),
        ([b"\x19"], "UNEXPECTED"),
        ([data(1, Record(False, True, bytes(65_536)), *[Record(True, False, b"x")] * 1)], "MALFORMED"),
        ([data(n, Record(False, True, bytes(65_000))) for n in range(1, 4)], "MESSAGE_TOO_LARGE"),
        ([data(n, Record(False, False, bytes(65_000))) for n in range(1, 20)], "CREDIT_EXCEEDED"),
    ],
)
def test_a_broken_rule_is_an_error_that_names_it(packets: list[bytes | str], code: str, run: Run) -> None:
    async def then(session: unstall.Session) -> None:
        await asyncio.sleep(0.05)
        with pytest.raises(unstall.SessionLost, match=f"the peer broke the protocol.*{code}") as caught:
            await receive_all(session)
        assert caught.value.cause == "protocol"
        with pytest.raises(unstall.Closed):
            await session.send("late")

    options = {"window": 1 << 18, "max_message": 150_000, "replay": 4 << 20}
    run(against(after_welcome(*packets), then, **options))


async def receive_all(session: unstall.Session) -> None:
    while True:
        assert isinstance(await session.recv(), bytes)


def test_endless_messages_take_no_more_memory_than_their_bound(run: Run) -> None:
    """Once the records of one byte of a message that does not end were kept as objects of their own."""

    async def handler(connection: ServerConnection) -> None:
        await after_welcome()(connection)
        sent, credit = 0, 1 << 20
        while True:
            if (sent + 1_000) * 66 > credit:
                packet = decode(await connection.recv(decode=False))
                credit = packet.get("offset", credit)
                continue
            await connection.send(data(sent + 1, *[Record(False, True, b"xy")] * 1_000))
            sent += 1_000

    async def then(session: unstall.Session) -> None:
        tracemalloc.start()
        with pytest.raises(unstall.SessionLost, match="MESSAGE_TOO_LARGE"):
            await session.recv()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20, peak

    run(against(handler, then, max_message=200_000))


def test_endless_fragments_and_large_frames_are_refused_while_they_arrive(run: Run) -> None:
    async def fragments(connection: ServerConnection) -> None:
        await after_welcome()(connection)

        def endless() -> Any:
            while True:
                yield bytes(1_000)

        await connection.send(endless())

    async def large(connection: ServerConnection) -> None:
        await after_welcome()(connection)
        await connection.send(bytes(1 << 20))

    async def then(session: unstall.Session) -> None:
        with pytest.raises(unstall.SessionLost) as caught:
            await session.recv()
        assert "over size limit" in str(caught.value) or "exceeds limit" in str(caught.value), caught.value

    for handler in (fragments, large):
        run(against(handler, then, reconnect=None))


@pytest.mark.parametrize(
    "changes",
    [{"generation": 9}, {"received": 5}, {"credit": 1000}, {"acked": 1}],
    ids=["generation", "received", "credit", "acked"],
)
def test_a_welcome_that_does_not_fit_is_no_session(changes: dict[str, int], run: Run) -> None:
    async def handler(connection: ServerConnection) -> None:
        hello = await connection.recv()
        assert isinstance(hello, bytes)
        await connection.send(welcome(decode(hello), **changes))

    async def main() -> None:
        async def never(_: unstall.Session) -> None:
            pytest.fail("it is no session")

        with pytest.raises(unstall.ConnectError, match="does not speak it"):
            await against(handler, never, require_session=True)

    run(main())


def test_a_server_that_never_answers_hello_is_an_error_in_time(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unstall._core.session.HANDSHAKE", 200)

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()

    async def main() -> None:
        async def never(_: unstall.Session) -> None:
            pytest.fail("it is no session")

        with pytest.raises(unstall.ConnectError, match="did not answer HELLO") as caught:
            await against(handler, never)
        assert caught.value.retryable

    run(main())


def test_a_full_server_says_how_long_to_wait(run: Run) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(encode({"kind": "REJECT", "reason": 5, "retry_after": 2_500}))

    async def main() -> None:
        async def never(_: unstall.Session) -> None:
            pytest.fail("it is no session")

        with pytest.raises(unstall.ConnectError, match="full") as caught:
            await against(handler, never)
        assert caught.value.retry_after == 2.5

    run(main())


def test_an_abort_of_the_peer_ends_it_with_its_words(run: Run) -> None:
    words = "you broke \x1b[31m it"

    async def then(session: unstall.Session) -> None:
        with pytest.raises(
            unstall.SessionLost, match=r"the peer aborted it: you broke \\x1b\[31m it"
        ) as caught:
            await session.recv()
        assert caught.value.cause == "aborted by peer"

    run(against(after_welcome(encode({"kind": "ABORT", "code": 1, "reason": words})), then))


def test_a_server_that_goes_away_gets_its_clients_back(run: Run) -> None:
    generations: list[int] = []

    async def handler(connection: ServerConnection) -> None:
        hello = await connection.recv()
        assert isinstance(hello, bytes)
        fields = decode(hello)
        generations.append(fields["generation"])
        await connection.send(welcome(fields, received=fields["received"]))
        if len(generations) == 1:
            await connection.send(encode({"kind": "GOAWAY", "window": 50, "reason": "a new version"}))
        else:
            await connection.send(data(1, Record(True, False, b"again")))

    async def then(session: unstall.Session) -> None:
        assert await session.recv() == "again"
        assert generations == [1, 2]
        session.abort()

    run(against(handler, then))


def test_a_server_that_sends_and_closes_again_and_again_fills_no_memory(run: Run) -> None:
    """Once what a lost plain connection had left did not count in the inbox of the next one."""
    inbox = 1 << 20
    connections = 0

    async def serve_one(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(ConnectionClosed):
            await connection.send(bytes(300_000))
            await connection.close(1011)

    async def main() -> None:
        async with serve(serve_one, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            reconnect = unstall.Reconnect(first=0.001, longest=0.002)
            session = await unstall.connect(
                f"ws://127.0.0.1:{port}", plain=True, inbox=inbox, reconnect=reconnect, silence_timeout=0.2
            )
            await asyncio.sleep(1)  # Time for hundreds of connections, if nothing held them up.
            held = session.stats().unread_bytes
            assert inbox <= held <= inbox + 600_000, held
            received: list[object] = [await session.recv() for _ in range(12)]
            assert sum(isinstance(item, unstall.Gap) for item in received) == 6
            assert sum(isinstance(item, bytes) and len(item) == 300_000 for item in received) == 6
            session.abort()

    run(main())


def test_floods_of_pings_are_answered_without_memory(run: Run) -> None:
    async def handler(connection: ServerConnection) -> None:
        await after_welcome()(connection)
        for number in range(2_000):
            await connection.send(encode({"kind": "PING", "number": number}))
        await connection.send(data(1, Record(True, False, b"done")))

    async def then(session: unstall.Session) -> None:
        assert await session.recv() == "done"
        session.abort()

    run(against(handler, then))
