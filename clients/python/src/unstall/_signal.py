"""Waiting for a condition within one event loop."""

from __future__ import annotations

import asyncio


class Signal:
    """Wakes all that wait. Whoever waits checks its condition, waits, and checks again: nothing is handed
    over, so a cancelled wait loses nothing."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    async def wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def fire(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
