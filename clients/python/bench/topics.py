#!/usr/bin/env python3
"""Messages a second of topics, beside `websockets`, with the same checks of each message.

    python bench/topics.py [--seconds 1] [--rounds 5]

It needs the program in release mode (`UNSTALL_BIN`, or target/release/unstall). `unstall hub` keeps the
log in memory. Subscribing reads a log from its beginning; publishing waits until every message is stored. The
peer of `websockets` is `unstall serve`, which sends packets and counts what it gets. The figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
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

import speed

from unstall.topics import Message, Stored, Topics

ROOT = pathlib.Path(__file__).resolve().parents[3]
SIZES = (64, 1024)
#: How many messages are read.
COUNT = 150_000
#: How many messages `publish_many` takes at a time.
BATCH = 1_000


async def connected(topics: Topics) -> None:
    """What is measured of `websockets` begins when it is connected, too."""
    await topics.publish("begin", "")


async def fill(url: str, size: int) -> int:
    """Publishes messages and a final one. Gives how many."""
    count, rest = COUNT, bytes(size - 8)
    async with Topics(url) as topics:
        for first in range(0, count, BATCH):
            some = range(first, min(first + BATCH, count))
            await topics.publish_many([("t", struct.pack(">Q", n) + rest) for n in some])
        await topics.publish("t", "end", final=True)
    return count


async def subscribe(url: str, size: int, count: int) -> float:
    """One at a time, as `async for` gives them."""
    async with Topics(url) as topics:
        await connected(topics)
        number, begun = 0, time.perf_counter()
        async for message in topics.subscribe("t"):
            if number == count:
                break
            assert isinstance(message, Message)
            got: Any = message.data
            if len(got) != size or struct.unpack_from(">Q", got) != (number,):
                raise AssertionError(f"message {number} is {got[:80]!r}")
            number += 1
        assert number == count
        return count / (time.perf_counter() - begun)


async def subscribe_batches(url: str, size: int, count: int) -> float:
    async with Topics(url) as topics:
        await connected(topics)
        number, begun = 0, time.perf_counter()
        subscription = topics.subscribe("t")
        while batch := await subscription.recv_batch():
            for message in batch:
                if number == count:
                    break
                assert isinstance(message, Message)
                got: Any = message.data
                if len(got) != size or struct.unpack_from(">Q", got) != (number,):
                    raise AssertionError(f"message {number} is {got[:80]!r}")
                number += 1
        assert number == count
        return count / (time.perf_counter() - begun)


async def publish_many(url: str, size: int, seconds: float) -> float:
    rest, number = bytes(size - 8), 0
    async with Topics(url) as topics:
        await topics.publish("u", "begin")
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            some = range(number, number + BATCH)
            results = await topics.publish_many([("u", struct.pack(">Q", n) + rest) for n in some])
            assert all(isinstance(result, Stored) for result in results)
            number += BATCH
        return number / (time.perf_counter() - begun)


async def publish_at_once(url: str, size: int, seconds: float) -> float:
    """One `publish` a message, a thousand of them at a time."""
    rest, number = bytes(size - 8), 0
    async with Topics(url) as topics:
        await topics.publish("u", "begin")
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            some = range(number, number + BATCH)
            await asyncio.gather(*[topics.publish("u", struct.pack(">Q", n) + rest) for n in some])
            number += BATCH
        return number / (time.perf_counter() - begun)


class Server:
    """`unstall hub` or `unstall serve`."""

    def __init__(self, *command: str) -> None:
        binary = os.environ.get("UNSTALL_BIN", str(ROOT / "target/release/unstall"))
        self._process = subprocess.Popen(
            [binary, *command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL)  # fmt: skip
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def measured(size: int, seconds: float) -> dict[str, float]:
    """One round."""
    serve, hub = Server("serve"), Server("hub", "--max-bytes", "512MiB")
    url = hub.url + "/topics"
    try:
        found = {
            f"websockets {way}": asyncio.run(speed.rate("websockets", way, size, serve.url, seconds))
            for way in ("down", "up")
        }
        count = asyncio.run(fill(url, size))
        for name, read in {"subscribe": subscribe, "subscribe, batches": subscribe_batches}.items():
            found[name] = asyncio.run(read(url, size, count))
        ways: dict[str, Callable[[str, int, float], Awaitable[float]]] = {
            "publish_many": publish_many, "publish, 1,000 at once": publish_at_once}  # fmt: skip
        for name, write in ways.items():
            found[name] = asyncio.run(write(url, size, seconds))  # type: ignore[arg-type]
        return found
    finally:
        serve.stop()
        hub.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, websockets {version('websockets')}; messages a second")
    print("| size | what | messages/s | beside websockets |")
    print("| --- | --- | --- | --- |")
    for size in SIZES:
        rounds = [measured(size, arguments.seconds) for _ in range(arguments.rounds)]
        medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        for name, rate in medians.items():
            base = medians["websockets " + ("up" if "publish" in name else "down")]
            beside = "" if "websockets" in name else f"{rate / base:.1f} times"
            print(f"| {size} | {name} | {rate:,.0f} | {beside} |")


if __name__ == "__main__":
    main()
