#!/usr/bin/env python3
"""The client that `unstall verify --client 'python3 clients/python/proof/echo.py {url}'` judges.

It sends each message back unchanged, in order. With `--by-hand` it acknowledges a message only after its
echo was delivered. A gap is told on standard error and ends it with exit code 1. When the peer closes the
session normally, it ends with 0.
"""

import asyncio
import pathlib
import sys
from collections import deque

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "src"))

import unstall


async def echo(session: unstall.Session, by_hand: bool) -> int:
    waiting: asyncio.Task[None] | None = None
    #: The place behind the last message whose echo was accepted.
    echoed: deque[unstall.Position] = deque(maxlen=1)
    async for message in session:
        assert not isinstance(message, unstall.Gap), "a lost session is the end"
        await session.send(message)
        echoed.append(session.position)
        if by_hand and (waiting is None or waiting.done()):
            waiting = asyncio.ensure_future(acknowledge(session, echoed))
    if waiting is not None:
        await waiting
    report = await session.close(within=30)
    if report.undelivered:
        print(f"{len(report.undelivered)} messages were not delivered", file=sys.stderr)
    return 2 if report.undelivered else 0


async def acknowledge(session: unstall.Session, echoed: deque[unstall.Position]) -> None:
    """Acknowledges everything whose echo was delivered."""
    while echoed:
        position = echoed.pop()
        await session.delivered()
        session.acknowledge(position)


async def connected(url: str, by_hand: bool) -> unstall.Session:
    """The first connection may be refused as well as any other."""
    while True:
        try:
            return await unstall.connect(
                url,
                require_session=True,
                acknowledge_by_hand=by_hand,
                # What follows a lost session must not be sent before the loss is told.
                fresh_sessions=False,
                reconnect=unstall.Reconnect(first=0.1, longest=1.0),
                ping_interval=0.25,
                silence_timeout=1.0,
            )
        except unstall.ConnectError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(0.1)


async def main() -> int:
    by_hand = sys.argv[1] == "--by-hand"
    session = await connected(sys.argv[-1], by_hand)
    try:
        return await echo(session, by_hand)
    except (unstall.SessionLost, unstall.Closed):
        why = (await session.close()).why
        print(f"gap: {why}" if isinstance(why, unstall.SessionLost) else why, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
