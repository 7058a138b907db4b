"""Starts the command, and packets as its documentation describes them."""

import asyncio
import contextlib
import dataclasses
import json
import struct

import xxhash

UNSTALL = ""

# Seconds for one check: far longer than any takes, so that only a hang fails, even on a busy
# machine.
DEADLINE = 60


def packet(index: int, payload: bytes) -> bytes:
    return struct.pack(">Q", index) + xxhash.xxh3_64_digest(payload) + payload


def is_packet(message: bytes, index: int, size: int) -> bool:
    return len(message) == size and message == packet(index, message[16:])


@dataclasses.dataclass
class Ended:
    code: int
    stdout: bytes
    stderr: bytes

    def json(self) -> dict:
        return json.loads(self.stdout)


@contextlib.asynccontextmanager
async def start(*args: str):
    """A running command; killed when the check is over."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        UNSTALL, *args, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(*args: str, stdin: bytes = b"") -> Ended:
    """Runs a command to its end."""
    async with start(*args) as process:
        stdout, stderr = await process.communicate(stdin)
        return Ended(process.returncode, stdout, stderr)


@contextlib.asynccontextmanager
async def serve(*args: str):
    """A running `unstall serve`: its URL and its process."""
    async with start("serve", "--listen", "127.0.0.1:0", *args) as process:
        line = (await process.stdout.readline()).decode()
        assert line.startswith("listening on "), line
        yield line.removeprefix("listening on ").strip(), process
