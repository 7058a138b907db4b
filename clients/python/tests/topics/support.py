"""Real hubs, a proxy that cuts, and what the tests of topics share."""

from __future__ import annotations

import asyncio
import functools
import os
import pathlib
import random
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from unstall.topics import Message, Subscription, Topics

CHECKOUT = pathlib.Path(__file__).resolve().parents[4]
#: No test takes longer, in seconds, unless something hangs.
TEST_TIMEOUT = 30.0


def program() -> str:
    """The `unstall` command."""
    places = [os.environ.get("UNSTALL_BIN", "")]
    places += [str(CHECKOUT / "target" / build / "unstall") for build in ("debug", "release")]
    for place in places:
        if place and os.access(place, os.X_OK):
            return place
    raise RuntimeError("no `unstall`: build it with `cargo build -p unstall-cli`, or set UNSTALL_BIN")


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test on an event loop, with a time limit. No task may stay behind."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        async def main() -> None:
            await asyncio.wait_for(test(*arguments, **named), TEST_TIMEOUT)
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert not rest, f"tasks that stay behind: {rest}"

        asyncio.run(main())

    return run


class Hub:
    """An `unstall hub` as a process, which can be killed and started again at the same address."""

    def __init__(self, *options: str, path: str = "/topics") -> None:
        #: A free one, which it keeps when it is started again.
        self.port = 0
        self.options, self.path = options, path
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{self.path}"

    def start(self) -> Hub:
        self.process = subprocess.Popen(
            [program(), "hub", "--listen", f"127.0.0.1:{self.port}", *self.options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        listening = re.match(r"listening on ws://.*:(\d+)", line)
        assert listening, line
        self.port = int(listening[1])
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    async def restart(self) -> None:
        """Killed, and started again, without a wait for the event loop's other tasks."""
        self.kill()
        await asyncio.get_running_loop().run_in_executor(None, self.start)


class CutProxy:
    """Forwards connections, and resets each after a seeded number of bytes in either
    direction.

    The numbers are drawn from `cuts`, anew for each connection. After `most` cuts it only
    forwards, so that a test ends."""

    def __init__(self, to: int, seed: int, cuts: tuple[int, int], most: int) -> None:
        self._to, self._random, self._cuts, self.left = to, random.Random(seed), cuts, most
        self.connections = self.cut = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> CutProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/topics"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        limits = [1 << 60, 1 << 60]
        if self.left > 0:
            limits = [self._random.randint(*self._cuts), self._random.randint(*self._cuts)]
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._to)
            ways = [
                asyncio.ensure_future(self._forward(reader, there, limits[0])),
                asyncio.ensure_future(self._forward(back, writer, limits[1])),
            ]
            try:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                if any(way.result() for way in done):
                    self.left -= 1
                    self.cut += 1
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for side in (writer, there):
                if side is not None:
                    side.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> bool:
        """Whether it was cut."""
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data[:limit])
                await writer.drain()
                limit -= len(data)
                if limit <= 0:
                    return True
        return False


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Waits until a condition holds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not condition():
        assert loop.time() < end, "the condition does not hold in time"
        await asyncio.sleep(0.005)


async def take(subscription: Subscription, count: int) -> list[Message]:
    """The next messages. Everything else fails."""
    messages: list[Message] = []
    while len(messages) < count:
        delivery = await subscription.recv()
        assert isinstance(delivery, Message), delivery
        messages.append(delivery)
    return messages


async def publish_numbers(
    topics: Topics, topic: str, numbers: range, pause: float = 0.0, size: int = 100
) -> None:
    """Publishes numbers as text, a few at a time, and checks that each is stored."""
    for first in range(numbers.start, numbers.stop, size):
        some = range(first, min(first + size, numbers.stop))
        results = await topics.publish_many([(topic, str(number)) for number in some])
        assert not [result for result in results if isinstance(result, Exception)], results
        await asyncio.sleep(pause)


def numbers_of(messages: list[Message]) -> list[int]:
    return [int(message.data) for message in messages]
