"""The consumer that writes into SQLite has each message exactly once, whatever is killed."""

from __future__ import annotations

import asyncio
import pathlib
import random
import sqlite3
import sys

import pytest
from support import Hub, on_loop, publish_numbers

from unstall.topics import Topics

CONSUMER = pathlib.Path(__file__).resolve().parents[2] / "examples" / "sqlite_consumer.py"


def rows(path: pathlib.Path) -> list[int]:
    database = sqlite3.connect(path)
    try:
        return [int(data) for (data,) in database.execute("SELECT data FROM messages ORDER BY offset")]
    except sqlite3.OperationalError:
        return []
    finally:
        database.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
@on_loop
async def test_each_message_is_in_the_database_exactly_once(
    stored_hub: Hub, tmp_path: pathlib.Path, seed: int
) -> None:
    count, path, draw, kills = 6_000, tmp_path / "messages.db", random.Random(seed), 0

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, str(CONSUMER), stored_hub.url, "t", str(path)
        )

    consumer = await start()
    async with Topics(stored_hub.url) as topics:
        publishing = asyncio.ensure_future(publish_numbers(topics, "t", range(count), pause=0.05))
        for turn in range(5):
            least = draw.randint(1, 600)
            before = len(rows(path))
            # The kill comes in the midst of what it writes.
            while len(rows(path)) < min(before + least, count - 1):
                assert consumer.returncode is None
                await asyncio.sleep(draw.random() * 0.02)
            if turn == 2:
                await stored_hub.restart()
            else:
                consumer.kill()
                await consumer.wait()
                kills += 1
                consumer = await start()
        await publishing
        await topics.publish("t", str(count), final=True)
        assert await asyncio.wait_for(consumer.wait(), 30) == 0
    assert kills == 4
    assert rows(path) == list(range(count + 1))
    gaps = sqlite3.connect(path)
    assert gaps.execute("SELECT COUNT(*) FROM gaps").fetchone() == (0,)
    gaps.close()
