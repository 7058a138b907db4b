#!/usr/bin/env python3
"""The client that `unstall verify --client 'python clients/python/proof/echo.py {url}'` judges.

It connects a session and sends each message back unchanged, in order. A gap is told on standard error and
ends it with exit code 1. When the peer closes the session normally, it ends with 0.
"""

import asyncio
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "src"))

import unstall


async def echo(url: str) -> int:
    session = await connected(url)
    async for message in session:
        if isinstance(message, unstall.Gap):
            print(f"a gap: {message.why}", file=sys.stderr)
            return 1
        await session.send(message)
    report = await session.close(within=30)
    for returned in report.undelivered:
        print(f"not delivered: {len(returned.message)} bytes", file=sys.stderr)
    return 1 if report.undelivered else 0


async def connected(url: str) -> unstall.Session:
    """The first connection may be refused as well as any other."""
    while True:
        try:
            return await unstall.connect(url, require_session=True)
        except unstall.ConnectError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(error.retry_after or 0.1)


if __name__ == "__main__":
    sys.exit(asyncio.run(echo(sys.argv[1])))
