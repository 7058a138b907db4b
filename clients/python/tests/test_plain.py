"""A plain connection: any WebSocket server. What may be lost with a connection is told by a gap."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unstall
from harness import Proxy, Serve, until

Run = Callable[..., Any]
QUICK = unstall.Reconnect(first=0.01, longest=0.05)


def test_it_is_labelled_and_has_no_promises_of_a_session(own_serve: Callable[..., Serve], run: Run) -> None:
    async def main() -> None:
        server = own_serve("--plain")
        async with unstall.connect(server.url + "/echo") as session:
            assert not session.is_session
            messages: list[str | bytes] = ["", b"", "grüße", bytes(300_000)]
            for message in messages:
                await session.send(message)
            assert [await session.recv() for _ in messages] == messages
            with pytest.raises(unstall.NotASession, match="check `is_session`"):
                await session.delivered()
        with pytest.raises(unstall.ConnectError, match="the server offers no session") as caught:
            await unstall.connect(server.url + "/echo", require_session=True)
        assert not caught.value.retryable

    run(main())


def test_a_lost_connection_is_a_gap_and_the_hook_subscribes_again(serve: Serve, run: Run) -> None:
    async def subscribe(setup: unstall.Setup) -> None:
        assert not setup.is_session
        setup.send("subscribe")

    async def main() -> None:
        async with Proxy(serve.port) as proxy:
            url = proxy.url + "/echo"
            session = await unstall.connect(url, plain=True, reconnect=QUICK, on_connect=subscribe)
            await session.send("one")
            assert await session.recv() == "subscribe"
            assert await session.recv() == "one"
            for _ in range(3):
                proxy.cut()
                gap = await session.recv()
                assert isinstance(gap, unstall.Gap)
                assert isinstance(gap.why, unstall.ConnectionLost)
                await session.send("more")
                assert await session.recv() == "subscribe"
                assert await session.recv() == "more"
            assert (await session.close()).clean

    run(main())


def test_a_hook_that_fails_is_an_error_and_is_tried_again_later(serve: Serve, run: Run) -> None:
    calls: list[int] = []

    async def hook(setup: unstall.Setup) -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise ValueError("no token")

    async def main(plain: bool) -> None:
        calls.clear()
        async with Proxy(serve.port) as proxy:
            session = await unstall.connect(proxy.url, plain=plain, reconnect=QUICK, on_connect=hook)
            if plain:
                proxy.cut()
                # One for the loss, and one for the connection on which the hook failed.
                for why in ("the peer ended", "the function on_connect failed: ValueError('no token')"):
                    gap = await session.recv()
                    assert isinstance(gap, unstall.Gap)
                    assert why in str(gap.why) or "reset" in str(gap.why)
                await until(lambda: len(calls) == 3, "the hook runs again")
                await session.send("works")
            else:
                await session.send("works")
                assert len(calls) == 1
            assert await session.recv() == "works"
            assert (await session.close()).clean

    async def fail(_: unstall.Setup) -> None:
        raise ValueError("no token")

    async def fails_first(plain: bool) -> None:
        with pytest.raises(unstall.ConnectError, match="the function on_connect failed: ValueError"):
            await unstall.connect(serve.url, plain=plain, on_connect=fail)

    for plain in (True, False):
        run(main(plain))
        run(fails_first(plain))


def test_reading_pauses_while_the_application_does_not_receive(serve: Serve, run: Run) -> None:
    async def main() -> None:
        inbox = 1 << 20
        async with unstall.connect(
            serve.url + "/packets", plain=True, inbox=inbox, ping_interval=0.2, silence_timeout=1.0
        ) as session:
            await session.send('{"count":100000,"size":128}')
            await until(lambda: session.stats().unread_bytes >= inbox, "the inbox is full")
            # Several silence timeouts: what is paused is not silent.
            await asyncio.sleep(2.5)
            assert session.stats().unread_bytes < inbox + (600 << 10)
            for number in range(100_000):
                packet = await session.recv()
                assert isinstance(packet, bytes)
                assert int.from_bytes(packet[:8], "big") == number
            assert session.stats().connections == 1

    run(main())


def test_send_waits_while_the_peer_does_not_read(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with Proxy(serve.port) as proxy:
            session = await unstall.connect(proxy.url + "/echo", plain=True, outbox=100_000)
            proxy.freeze()
            sent = 0

            async def send() -> None:
                nonlocal sent
                while True:
                    await session.send(bytes(10_000))
                    sent += 1

            sending = asyncio.ensure_future(send())
            await until(lambda: session.stats().unsent_bytes >= 100_000, "the outbox is full")
            assert session.stats().unsent_bytes < 120_000
            proxy.thaw()
            for _ in range(sent + 10):
                assert await session.recv() == bytes(10_000)
            sending.cancel()
            session.abort()

    run(main())


def test_close_gives_back_what_was_never_written(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with Proxy(serve.port) as proxy:
            session = await unstall.connect(proxy.url + "/echo", plain=True, reconnect=QUICK)
            proxy.refuses = True
            proxy.cut()
            await until(lambda: session._keeper._link is None, "the loss is noticed")
            await session.send("waits")
            report = await session.close(within=0.2)
            assert report.undelivered == [unstall.Returned("waits", False)]

    run(main())


def test_tokens_and_headers_are_made_for_each_attempt_and_never_told(serve: Serve, run: Run) -> None:
    tokens: list[str] = []
    attempts: list[unstall.Attempt] = []

    async def token() -> str:
        tokens.append(f"secret{len(tokens)}")
        return tokens[-1]

    def headers(attempt: unstall.Attempt) -> dict[str, str]:
        attempts.append(attempt)
        return {"X-Number": str(len(attempts))}

    async def main() -> None:
        requests: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for number in range(2):
                with pytest.raises(unstall.ConnectError) as caught:
                    await unstall.connect(f"ws://127.0.0.1:{port}/x?key=hidden", token=token, headers=headers)
                assert caught.value.status == 503
                assert caught.value.retry_after == 7
                assert caught.value.retryable
                assert "secret" not in str(caught.value)
                assert "hidden" not in str(caught.value)
                assert f"Authorization: Bearer secret{number}".encode() in requests[number]
                assert f"X-Number: {number + 1}".encode() in requests[number]
        assert [attempt.number for attempt in attempts] == [1, 1]

    run(main())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"headers": {"Host": "x"}}, "the request header 'Host' cannot be sent"),
        ({"headers": {"X": "a\r\nY: b"}}, "the request header 'X' cannot be sent"),
        ({"token": "a\nb"}, "the request header 'Authorization' cannot be sent"),
        ({"proxy": "ftp://secret@x"}, "the URL of the proxy cannot be used"),
        ({"proxy": "http://127.0.0.1:1"}, "no connection to"),
    ],
)
def test_settings_that_cannot_work_are_told(settings: dict[str, Any], error: str, run: Run) -> None:
    async def main() -> None:
        with pytest.raises(unstall.ConnectError, match=error) as caught:
            await unstall.connect("ws://127.0.0.1:1/", **settings)
        assert "secret" not in str(caught.value)

    run(main())


def test_a_token_function_that_fails_or_hangs_is_an_error_in_time(run: Run) -> None:
    async def hang() -> str:
        await asyncio.sleep(60)
        return ""

    def fail() -> str:
        raise ValueError("the service is down")

    async def main() -> None:
        for function in (hang, fail):
            with pytest.raises(unstall.ConnectError, match="the function that supplies the token") as caught:
                await unstall.connect("ws://127.0.0.1:1/", token=function, connect_timeout=0.05)
            assert caught.value.retryable
            assert caught.value.__cause__ is not None

    run(main())


def test_tls_with_a_certificate_of_ones_own(
    own_serve: Callable[..., Serve], run: Run, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {key} "
        f"-out {certificate} -subj /CN=localhost -addext subjectAltName=DNS:localhost".split(),
        check=True,
        capture_output=True,
    )

    async def main() -> None:
        server = own_serve("--tls-cert", str(certificate), "--tls-key", str(key))
        url = f"wss://localhost:{server.port}/echo"
        context = ssl.create_default_context(cafile=str(certificate))
        async with unstall.connect(url, ssl=context) as session:
            assert session.is_session
            await session.send("hidden")
            assert await session.recv() == "hidden"
        with pytest.raises(unstall.ConnectError, match="check the certificate") as caught:
            await unstall.connect(url)
        assert not caught.value.retryable

    run(main())


def test_settings_out_of_their_range_are_refused_at_once() -> None:
    wrong: list[dict[str, Any]] = [
        {"window": 1},
        {"max_message": 10},
        {"replay": 1 << 20},
        {"close_timeout": 0},
    ]
    for settings in wrong:
        with pytest.raises(ValueError, match=next(iter(settings))):
            unstall.connect("ws://127.0.0.1:1/", **settings)
    with pytest.raises(ValueError, match="exclude each other"):
        unstall.connect("ws://127.0.0.1:1/", plain=True, require_session=True)


def test_the_waits_between_attempts_have_full_jitter() -> None:
    from unstall._backoff import Backoff

    backoff = Backoff(unstall.Reconnect())
    bound = 0.25
    for _ in range(40):
        assert 0 <= backoff.next() <= bound
        bound = min(2 * bound, 30)
    backoff.lived(60, received_any=False)
    backoff.lived(1, received_any=True)
    assert max(backoff.next() for _ in range(10)) > 4
    backoff.lived(10, received_any=True)
    assert backoff.next() == 0
    assert backoff.next() <= 0.25
    assert backoff.next(5) >= 5
    assert backoff.next(10_000_000) <= 86_400 + 30
