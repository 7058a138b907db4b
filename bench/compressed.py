"""The workloads `compressed` and `compressed-held` with Python's websockets, whose defaults have a
window of 4 KiB as well. Run it with the Python of `interop/venv`. Prints messages and bytes a second,
and KiB for each connection of the server."""

import asyncio
import os
import resource
import sys
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

SETTINGS = {"compress_settings": {"memLevel": 5, "level": 1}}
CONNECTIONS, TICKS = 300, 40


def tick(place: int, size: int) -> bytes:
    text, n = "[", place + 1
    while len(text) < size:
        n = n * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        text += (
            '{"stream":"btcusdt@trade","data":{"e":"trade","E":17000000%05d,"s":"BTCUSDT","t":33100%05d,'
            '"p":"432%02d.%02d","q":"0.%05d","m":%s}},'
            % (place * 13, place, (n >> 20) % 100, (n >> 30) % 100, (n >> 40) % 100000, "true")
        )
    return text[: size - 1].encode() + bytes([97 + place % 26])


def rss() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def server(size: int, pipe):
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory as Factory

    ticks = [tick(place, size) for place in range(61)]
    before = None

    async def handler(ws):
        nonlocal before
        before = before or rss()
        async for request in ws:
            if request == "held":
                await ws.send(str((rss() - before) / 1024 / CONNECTIONS))
            elif isinstance(request, str):
                for number in range(int(request)):
                    await ws.send(ticks[number % 61])
            else:
                await ws.send(request)

    factory = Factory(server_max_window_bits=12, client_max_window_bits=12, **SETTINGS)
    async with serve(handler, "127.0.0.1", 0, compression=None, extensions=[factory]) as listening:
        os.write(pipe, f"{listening.sockets[0].getsockname()[1]}\n".encode())
        await asyncio.Future()


async def client(size: int, port: int):
    url = f"ws://127.0.0.1:{port}"
    async with connect(url) as ws:
        assert ws.protocol.extensions
        count = 60_000 if size < 1000 else 10_000
        await ws.send(str(count))
        began = time.perf_counter()
        for number in range(count):
            assert len(await ws.recv()) == size
        rate = count / (time.perf_counter() - began)
        held = []
        for _ in range(CONNECTIONS):
            one = await connect(url)
            for number in range(TICKS):
                await one.send(tick(number, size))
                await one.recv()
            held.append(one)
        await ws.send("held")
        kib = float(await ws.recv())
        print(f"{size} bytes: {rate:,.0f} messages/s, {rate * size / 1e6:,.1f} MB/s, {kib:.1f} KiB")


for size in (300, 4096):
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, {0})
        asyncio.run(server(size, writes))
        sys.exit(0)
    os.sched_setaffinity(0, {max(os.cpu_count() - 1, 0)})
    port = int(os.read(reads, 16))
    try:
        asyncio.run(client(size, port))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.sched_setaffinity(0, range(os.cpu_count()))
