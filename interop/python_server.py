"""Python's websockets as server of `unstall pull` and `unstall cat`."""

import asyncio
import contextlib
import json
import pathlib
import ssl
import tempfile

import trustme
from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from harness import packet, run, start


@contextlib.asynccontextmanager
async def server(handler, **options):
    """The URL of a server that runs `handler(websocket, number)` for each connection."""
    failures = []
    number = 0

    async def numbered(ws):
        nonlocal number
        number += 1
        try:
            await handler(ws, number - 1)
        except Exception as failure:
            failures.append(failure)
            raise

    scheme = "wss" if "ssl" in options else "ws"
    async with serve(numbered, "127.0.0.1", 0, **options) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"{scheme}://localhost:{port}"
    assert not failures, failures


def packets(indexes, size=64, fragmented=False):
    """A handler that answers the one request with these packets."""

    async def handler(ws, _):
        request = json.loads(await ws.recv())
        assert request["size"] == size
        for index in indexes:
            message = packet(index, bytes(size - 16))
            await ws.send([message[:5], b"", message[5:]] if fragmented else message)
        await ws.send(json.dumps({"done": request["count"]}))
        await ws.wait_closed()

    return handler


async def pull(url: str, count: int, *args: str, size: int = 64):
    return await run("pull", url, "--count", str(count), "--size", str(size), "--json", *args)


async def pull_finds_every_packet_intact():
    async with server(packets(range(20000), 4096)) as url:
        ended = await pull(url, 20000, size=4096)
        assert ended.code == 0, ended
        assert ended.json()["received"] == 20000


async def pull_joins_fragments():
    async with server(packets(range(1000), fragmented=True)) as url:
        assert (await pull(url, 1000)).code == 0


async def pull_goes_on_where_compression_is_offered():
    # The server supports permessage-deflate, but the client does not offer it.
    async with server(packets(range(1000)), compression="deflate") as url:
        assert (await pull(url, 1000)).code == 0


AGREEMENTS = [
    {},
    {"server_max_window_bits": 9, "client_max_window_bits": 9},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
]


async def cat_compresses_both_ways_whatever_is_agreed():
    lines = [f'{{"s":"BTCUSDT","p":"43210.{n:02}","q":"0.0122","m":true}}' * 4 for n in range(300)]

    async def handler(ws, _):
        assert len(ws.protocol.extensions) == 1
        async for message in ws:
            await ws.send(message)

    for agreement in AGREEMENTS:
        factory = ServerPerMessageDeflateFactory(**agreement)
        async with server(handler, compression=None, extensions=[factory]) as url:
            ended = await run(
                "cat", "--compress=smallest=0", url, stdin="\n".join(lines).encode()
            )
            assert ended.code == 0, ended
            assert ended.stdout.decode().splitlines() == lines, agreement


async def pull_inflates_what_the_server_compresses():
    async with server(packets(range(5000), 4096), compression="deflate") as url:
        ended = await pull(url, 5000, "--compress=level=6,window=15", size=4096)
        assert ended.code == 0, ended


async def pull_slows_the_server_down_rather_than_its_memory():
    async with server(packets(range(200), 1 << 20), write_limit=1 << 16) as url:
        ended = await pull(url, 200, "--slow", "10", size=1 << 20)
        assert ended.code == 0, ended
        assert ended.json()["peak_rss_bytes"] < 64 << 20, ended


async def pull_counts_each_fault():
    for indexes, field in [
        ([0, 1, 3], "lost"),
        ([0, 1, 1, 2, 3], "duplicated"),
        ([0, 2, 1, 3], "reordered"),
        ([0, 1, 2, 3, 4], "corrupted"),
    ]:
        async with server(packets(indexes)) as url:
            ended = await pull(url, 4)
            assert ended.code == 1 and ended.json()[field] == 1, ended


async def pull_tells_that_the_connection_broke():
    async def handler(ws, number):
        if number == 0:
            await ws.recv()
            await ws.send(packet(0, b""))
            ws.transport.close()
        await ws.wait_closed()

    async with server(handler) as url:
        ended = await pull(url, 10, size=16)
        result = ended.json()
        assert (ended.code, result["received"], result["lost"]) == (1, 1, 9), ended
        assert result["error"], ended


async def cat_turns_lines_into_messages_and_back():
    heard = []

    async def handler(ws, _):
        assert ws.subprotocol == "v1.json"
        assert ws.request.headers["Authorization"] == "Bearer s3cret"
        async for message in ws:
            heard.append(message)
            await ws.send(f"heard {message}")

    async with server(handler, subprotocols=["v1.json"]) as url:
        ended = await run(
            "cat", url, "--subprotocol", "v2.json", "--subprotocol", "v1.json",
            "-H", "Authorization: Bearer s3cret", stdin="one\n\nthree, grüße".encode(),
        )  # fmt: skip
        assert ended.code == 0, ended
        assert heard == ["one", "", "three, grüße"]
        assert ended.stdout.decode() == "heard one\nheard \nheard three, grüße\n"


async def cat_sends_bytes_with_binary():
    heard = []

    async def handler(ws, _):
        async for message in ws:
            heard.append(message)

    async with server(handler) as url:
        ended = await run("cat", "--binary", url, stdin=b"\x00\xff\r\n\nend")
        assert ended.code == 0, ended
        assert heard == [b"\x00\xff\r", b"", b"end"]


async def cat_closes_with_1000_when_its_input_has_ended():
    codes = []

    async def handler(ws, _):
        await ws.wait_closed()
        codes.append(ws.close_code)

    async with server(handler) as url:
        assert (await run("cat", url, "--linger", "0")).code == 0
    assert codes == [1000]


async def cat_answers_pings_while_its_input_is_idle():
    async def handler(ws, _):
        for _ in range(3):
            await asyncio.wait_for(await ws.ping(), 5)
        await ws.send("alive")
        await ws.close()

    async with server(handler, ping_interval=None) as url, start("cat", url) as cat:
        assert await cat.stdout.readline() == b"alive\n"
        assert await cat.wait() == 0


async def cat_connects_again_and_tells_where_messages_may_be_missing():
    async def handler(ws, number):
        await ws.send(f"connection {number}")
        if number < 2:
            ws.transport.abort()
        else:
            assert await ws.recv() == "typed later"
            await ws.close()

    async with server(handler) as url, start("cat", url) as cat:
        # Not every "connection N" arrives: an abort may destroy data that was sent before it.
        while await cat.stdout.readline() != b"connection 2\n":
            pass
        cat.stdin.write(b"typed later\n")
        _, stderr = await cat.communicate()
        assert cat.returncode == 0, stderr
        assert stderr.count(b"messages may be missing here") == 2, stderr


async def cat_sends_what_was_typed_while_there_was_no_server():
    heard = []

    async def first(ws):
        await ws.send("ready")
        await ws.wait_closed()

    async def second(ws):
        async for message in ws:
            heard.append(message)
            if len(heard) == 3:
                break

    async with serve(first, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with start("cat", f"ws://127.0.0.1:{port}") as cat:
            assert await cat.stdout.readline() == b"ready\n"
            for ws in listening.connections:
                ws.transport.abort()
            listening.close()
            await listening.wait_closed()
            assert b"connection lost" in await cat.stderr.readline()
            cat.stdin.write(b"1\n2\n3\n")
            cat.stdin.close()
            async with serve(second, "127.0.0.1", port):
                assert await cat.wait() == 0
    assert heard == ["1", "2", "3"]


async def cat_without_reconnecting_fails_when_the_connection_is_lost():
    async def handler(ws, _):
        await ws.close(4001, "token expired")

    async with server(handler) as url:
        ended = await run("cat", "--no-reconnect", url)
        assert ended.code == 1, ended
        assert b"4001" in ended.stderr and b"token expired" in ended.stderr, ended


async def cat_trusts_the_roots_that_it_is_given():
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def handler(ws, _):
        await ws.send(await ws.recv())

    with tempfile.TemporaryDirectory() as directory:
        roots = str(pathlib.Path(directory, "roots.pem"))
        authority.cert_pem.write_to_path(roots)
        async with server(handler, ssl=context) as url:
            ended = await run("cat", "--tls-roots", roots, url, stdin=b"private\n")
            assert (ended.code, ended.stdout) == (0, b"private\n"), ended
            assert (await run("cat", url)).code == 1


def checks():
    return [
        pull_finds_every_packet_intact,
        pull_joins_fragments,
        pull_goes_on_where_compression_is_offered,
        cat_compresses_both_ways_whatever_is_agreed,
        pull_inflates_what_the_server_compresses,
        pull_slows_the_server_down_rather_than_its_memory,
        pull_counts_each_fault,
        pull_tells_that_the_connection_broke,
        cat_turns_lines_into_messages_and_back,
        cat_sends_bytes_with_binary,
        cat_closes_with_1000_when_its_input_has_ended,
        cat_answers_pings_while_its_input_is_idle,
        cat_connects_again_and_tells_where_messages_may_be_missing,
        cat_sends_what_was_typed_while_there_was_no_server,
        cat_without_reconnecting_fails_when_the_connection_is_lost,
        cat_trusts_the_roots_that_it_is_given,
    ]
