"""Dialing until it succeeds: attempts, and the waits between them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ._backoff import Backoff, Reconnect
from ._dial import Attempt, Target, dial
from ._errors import ConnectError
from ._events import AttemptFailed, EventLog, Reconnecting
from ._link import Link
from ._options import Options

SUBPROTOCOL = "unstall.v1"


class Dialer:
    """Makes the connections of one client."""

    def __init__(self, target: Target, options: Options, events: EventLog) -> None:
        self._target, self._options, self._events = target, options, events
        self.backoff = Backoff(options.reconnect or Reconnect())
        #: The next connection is plain.
        self.plain_once = False
        #: The wait that the server asked for, in seconds.
        self.asked: float | None = None

    def may_retry(self, failures: int) -> bool:
        """Whether another attempt may follow so many failures."""
        return self._options.reconnect is not None and self.backoff.allows(failures)

    async def connect(self, is_first: bool, *ends: asyncio.Future[None]) -> Link | None:
        """Dials until it succeeds; the first time only once. None: one of the futures was done before.
        Raises `ConnectError` if it gives up."""
        failures, error = 0, None
        while True:
            wait = 0.0 if is_first or self.plain_once else self.backoff.next(self.asked)
            self.asked = None
            if not is_first:
                self._events.push(Reconnecting(failures + 1, wait))
            if wait:
                await first_of(*ends, timeout=wait)
            if any(end.done() for end in ends):
                return None
            try:
                link = await until(ends, self._dial(Attempt(failures + 1, error)))
            except ConnectError as failed:
                failures, error, self.asked = failures + 1, failed, failed.retry_after
                self._events.push(AttemptFailed(failures, failed))
                if is_first or not failed.retryable or not self.may_retry(failures):
                    raise
                continue
            self.plain_once = False
            return link

    async def _dial(self, attempt: Attempt) -> Link:
        offered = [] if self._options.plain or self.plain_once else [SUBPROTOCOL]
        return await dial(self._target, offered, self._options.max_message, attempt)


async def first_of(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    """Waits until one of them is done."""
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def until(ends: tuple[asyncio.Future[None], ...], work: Coroutine[Any, Any, Link]) -> Link | None:
    """The link that `work` makes. None if another future is done before. No link stays behind, even if the
    link is there in the moment of a cancellation."""
    task = asyncio.ensure_future(work)
    try:
        await first_of(task, *ends)
    except asyncio.CancelledError:
        discard(task)
        raise
    if task.done():
        return task.result()
    discard(task)
    return None


def discard(task: asyncio.Future[Link]) -> None:
    task.cancel()
    task.add_done_callback(drop)


def drop(task: asyncio.Future[Link]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().transport.abort()
