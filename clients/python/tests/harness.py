"""What the tests share: the real `unstall serve`, a proxy that breaks connections, and waiting."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


def binary() -> str:
    """The program `unstall`: `UNSTALL_BIN`, or the one that this checkout has built."""
    for path in (
        os.environ.get("UNSTALL_BIN"),
        ROOT / "target/debug/unstall",
        ROOT / "target/release/unstall",
    ):
        if path and os.access(path, os.X_OK):
            return str(path)
    pytest.fail("build the program first (cargo build -p unstall-cli), or set UNSTALL_BIN")


class Serve:
    """`unstall serve`, which can be stopped and started again on its port."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [binary(), "serve", "--listen", f"127.0.0.1:{self.port}", *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1])

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


async def until(condition: Callable[[], object], what: str, within: float = 10.0) -> None:
    """Waits until the condition holds."""
    end = asyncio.get_running_loop().time() + within
    while not condition():
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"{what}: {asyncio.all_tasks()}")
        await asyncio.sleep(0.002)


class Proxy:
    """A TCP proxy that breaks what goes through it, on purpose."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.connections: list[list[asyncio.StreamWriter]] = []
        self.accepted = 0
        #: New connections are closed at once.
        self.refuses = False
        #: Nothing is passed on, in either direction.
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        #: The next connections are cut after so many bytes, in both directions together.
        self.cuts: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.thaw()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Breaks all connections."""
        for pair in self.connections:
            for writer in pair:
                writer.transport.abort()
        self.connections.clear()

    def freeze(self) -> None:
        self.open_gate.clear()

    def thaw(self) -> None:
        self.open_gate.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        if self.refuses:
            return writer.transport.abort()
        left = [self.cuts.pop(0) if self.cuts else 1 << 60]
        try:
            peer_reader, peer_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return writer.transport.abort()
        pair = [writer, peer_writer]
        self.connections.append(pair)
        try:
            ways = self._pass(reader, peer_writer, left), self._pass(peer_reader, writer, left)
            await asyncio.gather(*ways)
        except (OSError, EOFError):
            pass
        finally:
            for one in pair:
                one.transport.abort()
        return None

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]
    ) -> None:
        while data := await reader.read(16 << 10):
            await self.open_gate.wait()
            data = data[: left[0]]
            left[0] -= len(data)
            writer.write(data)
            if left[0] <= 0:
                await writer.drain()
                raise EOFError
            await writer.drain()
        raise EOFError
