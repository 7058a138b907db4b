"""Asks for packets, takes none, and prints the most memory that this took: URL SIZE WINDOW.

A program of its own: memory is counted for the whole process, in which other tests leave their own.
"""

import asyncio
import sys
import tracemalloc

import unstall
from harness import until


async def main(url: str, size: int, window: int) -> None:
    async with unstall.connect(url, window=window) as session:
        await session.send("an invalid request")  # The first answer loads what is loaded only once.
        await session.recv()
        tracemalloc.start()
        await session.send(f'{{"count":100000,"size":{size}}}')
        await until(lambda: session.stats().unread_bytes > window - 70_000, "the window is full")
        await asyncio.sleep(0.3)  # Time for more to come, if nothing held it up.
        print(tracemalloc.get_traced_memory()[1])
        for largest in tracemalloc.take_snapshot().statistics("lineno")[:8]:
            print(largest, file=sys.stderr)
        session.abort()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
