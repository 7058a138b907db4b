"""The programs of the README run."""

from __future__ import annotations

import asyncio
import pathlib
import re
import subprocess
import sys

from support import Hub, on_loop

from unstall.topics import Topics

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def programs() -> list[str]:
    """Those of the chapter on topics."""
    chapter = README.read_text().split("\n## Topics\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", chapter, re.S)


def at(program: str, hub: Hub) -> str:
    return re.sub(r'"wss://[a-z.]+/topics"', f'"{hub.url}"', program)


async def start(program: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-W", "error", "-c", program, stdout=subprocess.PIPE
    )


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@on_loop
async def test_the_program_that_publishes_and_subscribes_runs(hub: Hub) -> None:
    process = await start(at(programs()[0], hub))
    try:
        assert await line(process) == "safe at offset 1"
        assert await line(process) == 'orders.new {"item": 7}'
        async with Topics(hub.url) as topics:
            await topics.publish("orders.old", "more")
        assert await line(process) == "orders.old more"
    finally:
        process.kill()
        await process.communicate()


@on_loop
async def test_the_program_without_asyncio_runs(hub: Hub) -> None:
    process = await start(at(programs()[1], hub))
    try:
        assert "data='hello', offset=1" in await line(process)
        async with Topics(hub.url) as topics:
            await topics.publish("greetings", "end", final=True)
        assert "final=True" in await line(process)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def test_there_are_these_two_programs() -> None:
    assert len(programs()) == 2
