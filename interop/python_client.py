"""Python's websockets as client of `unstall serve`."""

import asyncio
import json
import pathlib
import signal
import ssl
import struct
import tempfile

import trustme
import websockets
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from harness import is_packet, packet, serve

ANY_SIZE = {"max_size": None}


async def echo_returns_text_as_text_and_binary_as_binary():
    async with serve() as (url, _), connect(url + "/echo", **ANY_SIZE) as ws:
        for message in ["grüße", "", b"\x00\xff\n", b"", "x" * (1 << 20), b"y" * (3 << 20)]:
            await ws.send(message)
            assert await ws.recv() == message


async def echo_joins_fragments_also_around_a_ping():
    async def fragments():
        yield b"first, "
        await (await ws.ping())
        yield b""
        yield b"last"

    async with serve() as (url, _), connect(url) as ws:
        await ws.send(fragments())
        assert await ws.recv() == b"first, last"
        await ws.send(["a", "b", "ç"])
        assert await ws.recv() == "abç"


async def a_ping_is_answered_while_packets_come():
    async with serve() as (url, _), connect(url + "/packets") as ws:
        await ws.send('{"count":20000,"size":4096}')
        pong = await ws.ping()
        for index in range(20000):
            assert is_packet(await ws.recv(), index, 4096)
        await asyncio.wait_for(pong, 5)
        assert json.loads(await ws.recv()) == {"done": 20000}


async def packets_wait_for_a_client_that_reads_late():
    # With a small queue and a pause, the server's sends wait, and nothing is lost.
    async with serve() as (url, _), connect(url + "/packets", max_queue=2) as ws:
        await ws.send('{"count":5000,"size":16384}')
        await asyncio.sleep(1)
        for index in range(5000):
            assert is_packet(await ws.recv(), index, 16384)


async def requests_sent_ahead_are_answered_in_order():
    async with serve() as (url, _), connect(url + "/packets") as ws:
        for count in range(100):
            await ws.send(json.dumps({"count": count, "size": 16 + count}))
        await ws.send("nonsense")
        for count in range(100):
            for index in range(count):
                assert is_packet(await ws.recv(), index, 16 + count)
            assert json.loads(await ws.recv()) == {"done": count}
        assert "error" in json.loads(await ws.recv())


async def a_client_that_sends_everything_before_it_reads_is_answered():
    # Stops the library's own reading, as a loop that sends first does.
    async with serve() as (url, _), connect(url + "/packets", max_queue=1) as ws:
        for _ in range(5000):
            await ws.send('{"count":1,"size":4096}')
        for _ in range(5000):
            assert is_packet(await ws.recv(), 0, 4096)
            assert json.loads(await ws.recv()) == {"done": 1}


async def sink_counts_what_was_sent():
    async with serve() as (url, _), connect(url + "/sink") as ws:
        for index in [0, 1, 1, 4, 3]:
            await ws.send(packet(index, b"made in Python"))
        await ws.send(packet(5, b"whole")[:-1] + b"x")
        await ws.send('{"report":true}')
        assert json.loads(await ws.recv()) == {
            "count": 5, "received": 4, "lost": 1, "duplicated": 1, "reordered": 1, "corrupted": 1,
        }  # fmt: skip


async def both_ways_at_once_fill_no_pipe():
    """64 MiB each way through /echo, sending never waiting for reading."""
    count, size = 1024, 1 << 16

    async def send_all():
        for index in range(count):
            await ws.send(packet(index, bytes(size - 16)))

    async with serve() as (url, _), connect(url + "/echo", compression=None) as ws:
        sending = asyncio.create_task(send_all())
        for index in range(count):
            assert is_packet(await ws.recv(), index, size)
        await sending


async def is_closed_with(ws, code):
    try:
        await ws.recv()
    except websockets.ConnectionClosedError as closed:
        assert closed.rcvd and closed.rcvd.code == code, closed
    else:
        raise AssertionError("it was echoed")


async def a_close_is_answered_with_its_code():
    async with serve() as (url, _):
        for code, reason in [(1000, ""), (1001, "bye"), (4321, "grüße")]:
            async with connect(url) as ws:
                await asyncio.wait_for(ws.close(code, reason), 5)
                assert ws.protocol.close_rcvd.code == code
                assert not ws.protocol.close_rcvd_then_sent


async def text_that_is_not_utf8_is_closed_with_1007():
    async with serve() as (url, _), connect(url) as ws:
        ws.protocol.send_text(b"\xff\xfe", fin=True)
        ws.send_data()
        await is_closed_with(ws, 1007)


async def a_message_over_the_limit_is_closed_with_1009():
    async with serve() as (url, _), connect(url) as ws:
        # The head of a frame is enough: its length is checked before the payload.
        ws.transport.write(struct.pack(">BBQ4s", 0x82, 0x80 | 127, (16 << 20) + 1, b"mask"))
        await is_closed_with(ws, 1009)


async def a_signal_closes_with_1001():
    async with serve() as (url, process), connect(url) as ws:
        await ws.send("before")
        assert await ws.recv() == "before"
        process.send_signal(signal.SIGTERM)
        try:
            await ws.recv()
        except websockets.ConnectionClosedOK as closed:
            assert closed.rcvd.code == 1001
        assert await process.wait() == 0


def deflate(**parameters):
    return [ClientPerMessageDeflateFactory(**parameters)]


OFFERS = [
    {},
    {"client_max_window_bits": True},
    {"client_max_window_bits": 9, "server_max_window_bits": 10},
    {"server_no_context_takeover": True},
    {"client_no_context_takeover": True, "client_max_window_bits": True},
    {"server_max_window_bits": 9, "server_no_context_takeover": True},
]


async def compressed_messages_of_every_offer_come_back():
    tick = json.dumps({"stream": "btcusdt@trade", "price": "43210.17", "maker": True})
    messages = ["", "short", tick * 4, b"", tick.encode() * 60, "grüße " * 20000, tick * 4]
    async with serve("--compress=smallest=0") as (url, _):
        for offer in OFFERS:
            async with connect(
                url + "/echo", compression=None, extensions=deflate(**offer), **ANY_SIZE
            ) as ws:
                assert [type(it).__name__ for it in ws.protocol.extensions] == [
                    "PerMessageDeflate"
                ], offer
                for message in messages * 3:
                    await ws.send(message)
                    assert await ws.recv() == message, offer
                await ws.send(["in ", "", tick, "pieces"])
                assert await ws.recv() == "in " + tick + "pieces"


async def nothing_is_compressed_unless_the_server_is_told_to():
    async with serve() as (url, _), connect(url + "/echo") as ws:
        assert not ws.protocol.extensions
        await ws.send("plain " * 100)
        assert await ws.recv() == "plain " * 100


async def a_bomb_is_closed_with_1009():
    async with serve("--compress") as (url, _), connect(url, **ANY_SIZE) as ws:
        await ws.send(bytes(64 << 20))
        await is_closed_with(ws, 1009)


async def an_unknown_path_is_404():
    async with serve() as (url, _):
        try:
            await connect(url + "/nowhere")
        except websockets.InvalidStatus as refused:
            assert refused.response.status_code == 404
        else:
            raise AssertionError("it was accepted")


async def wss_with_a_certificate_of_ones_own():
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with tempfile.TemporaryDirectory() as directory:
        chain, key = (str(pathlib.Path(directory, name)) for name in ("chain.pem", "key.pem"))
        pathlib.Path(chain).write_bytes(b"".join(b.bytes() for b in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(key)
        async with serve("--tls-cert", chain, "--tls-key", key) as (url, _):
            url = url.replace("127.0.0.1", "localhost") + "/packets"
            async with connect(url, ssl=trust) as ws:
                await ws.send('{"count":5000,"size":4096}')
                for index in range(5000):
                    assert is_packet(await ws.recv(), index, 4096)


def checks():
    return [
        echo_returns_text_as_text_and_binary_as_binary,
        echo_joins_fragments_also_around_a_ping,
        a_ping_is_answered_while_packets_come,
        packets_wait_for_a_client_that_reads_late,
        requests_sent_ahead_are_answered_in_order,
        a_client_that_sends_everything_before_it_reads_is_answered,
        sink_counts_what_was_sent,
        both_ways_at_once_fill_no_pipe,
        a_close_is_answered_with_its_code,
        text_that_is_not_utf8_is_closed_with_1007,
        a_message_over_the_limit_is_closed_with_1009,
        compressed_messages_of_every_offer_come_back,
        nothing_is_compressed_unless_the_server_is_told_to,
        a_bomb_is_closed_with_1009,
        a_signal_closes_with_1001,
        an_unknown_path_is_404,
        wss_with_a_certificate_of_ones_own,
    ]
