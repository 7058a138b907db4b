#!/usr/bin/env python3
"""Messages a second of sessions, beside `websockets`, with the same checks, against `unstall serve`.

    python bench/speed.py [--seconds 1] [--rounds 5]

It needs the program in release mode (`UNSTALL_BIN`, or target/release/unstall). Each round measures every
engine, one after another; the figures are medians over the rounds. The peer of `websockets` is the same
server, on a plain connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import websockets

import unstall

ROOT = pathlib.Path(__file__).resolve().parents[3]
SIZES = (64, 1024)


class Websockets:
    """Python's `websockets`, as its documentation has it, without compression."""

    def __init__(self, ws: websockets.ClientConnection) -> None:
        self.ws, self.send, self.recv = ws, ws.send, ws.recv

    async def __aenter__(self) -> Websockets:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ws.close()

    @classmethod
    async def connect(cls, url: str) -> Websockets:
        return cls(await websockets.connect(url, compression=None, max_size=None))

    def __aiter__(self) -> Any:
        return self.ws.__aiter__()


async def session(url: str) -> Any:
    return await unstall.connect(url, require_session=True)


async def plain(url: str) -> Any:
    return await unstall.connect(url, plain=True)


ENGINES: dict[str, Callable[[str], Awaitable[Any]]] = {
    "websockets": Websockets.connect,
    "session": session,
    "plain": plain,
}


def message(number: int, rest: bytes) -> bytes:
    return struct.pack(">Q", number) + rest


async def receive(ws: Any, count: int, size: int) -> None:
    """Checks each message: its number, and its length."""
    number = 0
    async for got in ws:
        if len(got) != size or struct.unpack_from(">Q", got) != (number,):
            raise AssertionError(f"message {number} is {got[:80]!r}")
        number += 1
        if number == count:
            return


async def both(ws: Any, count: int, size: int) -> None:
    """Sends and receives at once, over an echo."""
    rest = bytes(size - 8)

    async def send() -> None:
        for number in range(count):
            await ws.send(message(number, rest))

    await asyncio.gather(send(), receive(ws, count, size))


async def down(ws: Any, count: int, size: int) -> None:
    await ws.send(json.dumps({"count": count, "size": size}))
    await receive(ws, count, size)
    assert json.loads(await ws.recv()) == {"done": count}


async def up(ws: Any, count: int, size: int) -> None:
    """The server counts; its answer comes once it has everything."""
    rest = bytes(size - 8)
    for number in range(count):
        await ws.send(message(number, rest))
    await ws.send('{"report":true}')
    report = json.loads(await ws.recv())
    assert sum(value for value in report.values() if isinstance(value, int)) >= count, report


WAYS = {"both ways": ("/echo", both), "down": ("/packets", down), "up": ("/sink", up)}


async def rate(engine: str, way: str, size: int, url: str, seconds: float) -> float:
    """Messages a second. The number of messages grows until it takes long enough."""
    path, run = WAYS[way]
    count = 2_000
    while True:
        async with await ENGINES[engine](url + path) as ws:
            started = time.perf_counter()
            await run(ws, count, size)
            took = time.perf_counter() - started
        if took >= seconds / 2:
            return count / took
        count = int(count * min(20, max(2, 1.2 * seconds / took)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    binary = os.environ.get("UNSTALL_BIN", str(ROOT / "target/release/unstall"))
    command = [binary, "serve", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    url = server.stdout.readline().split()[-1]
    print(f"Python {sys.version.split()[0]}, websockets {version('websockets')}; messages a second")
    print("| way | size | " + " | ".join(ENGINES) + " | session / websockets | plain / websockets |")
    print("| --- | --- |" + " --- |" * (len(ENGINES) + 2))
    try:
        for way in WAYS:
            for size in SIZES:
                rates: dict[str, list[float]] = {engine: [] for engine in ENGINES}
                for _ in range(arguments.rounds):
                    for engine in ENGINES:
                        rates[engine].append(asyncio.run(rate(engine, way, size, url, arguments.seconds)))
                base = rates["websockets"]
                times = [
                    statistics.median(a / b for a, b in zip(rates[engine], base, strict=True))
                    for engine in ("session", "plain")
                ]
                medians = [f"{statistics.median(rates[engine]):,.0f}" for engine in ENGINES]
                cells = [way, f"{size} B", *medians, *(f"{ratio:.1f}" for ratio in times)]
                print("| " + " | ".join(cells) + " |", flush=True)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
