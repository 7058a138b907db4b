"""The traffic of a plain connection: a WebSocket whose other end is any program."""

from __future__ import annotations

import asyncio
from collections import deque

from ._errors import Closed, Error, MessageTooLarge, Returned
from ._events import Gap
from ._link import Link
from ._options import OVERHEAD
from ._traffic import Board

#: How many messages are written at once, at most: one call of the system for many.
WRITE_MESSAGES = 512
#: Up to so many messages are handed over at once.
TAKE_MESSAGES = 512


class PlainTraffic:
    """Messages over any number of plain connections. What is lost with one of them is lost: the stream has
    a gap."""

    is_session = False

    def __init__(self, board: Board) -> None:
        self.board, self.options = board, board.options
        self.loop = asyncio.get_running_loop()
        self.link: Link | None = None
        self.is_over = False
        self.why: Error | None = None
        self.over: asyncio.Future[None] = self.loop.create_future()
        self.is_abandoned = False
        #: Not while the function `on_connect` runs.
        self.is_ready = False
        self._queue: deque[str | bytes] = deque()
        self._queued = 0
        self._inbox: list[str | bytes | Gap] = []
        self._held = 0
        self._close: tuple[int, str] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._pump_due = False

    # ---- The application ----

    def accept(self, is_text: bool, payload: bytes) -> bool:
        if self._close or self.is_over:
            raise Closed("the connection has ended or is closing: the message was not accepted")
        if len(payload) > self.options.max_message:
            raise MessageTooLarge(len(payload), self.options.max_message)
        if self._queued >= self.options.outbox:
            return False
        self._queue.append(payload.decode() if is_text else payload)
        self._queued += len(payload) + OVERHEAD
        self._pump_soon()
        return True

    def take(self) -> list[str | bytes | Gap] | None:
        if not self._inbox:
            return None
        messages, self._inbox = self._inbox[:TAKE_MESSAGES], self._inbox[TAKE_MESSAGES:]
        self._held -= sum(map(cost, messages))
        if self.link is not None and self._held <= self.options.inbox // 2:
            self.link.resume()
        messages.reverse()
        return messages

    def untaken(self) -> bool:
        return bool(self._inbox)

    def unread(self) -> int:
        return self._held

    def unsent(self) -> int:
        return self._queued

    def close(self, code: int, reason: str, within: float) -> None:
        """What is queued is sent first, as far as that is soon enough."""
        if self._close is None:
            self._close = (code, reason)
            self._deadline = self.loop.call_later(within, self.give_up, None)
            self._pump_soon()

    def give_up(self, why: Error | None) -> None:
        if self.is_over:
            return
        self.is_over, self.why = True, why
        if not self.over.done():
            self.over.set_result(None)
        if self.link is not None:
            self.link.transport.abort()
        self.board.fire_all()

    def undelivered(self) -> list[Returned]:
        """What was never written. Of what was written, a plain connection does not know."""
        return [Returned(message, False) for message in self._queue]

    # ---- Connections ----

    def mark(self, gap: Gap) -> None:
        """A gap stands behind what has arrived. Gaps without a message between them are one."""
        if not self._inbox or not isinstance(self._inbox[-1], Gap):
            self._inbox.append(gap)
            self._held += cost(gap)
        self.board.readable.fire()

    def attach(self, link: Link) -> None:
        self.link, self.is_ready = link, False
        link.limit(self.options.max_message)
        if self._held >= self.options.inbox:
            # What earlier connections have left counts too.
            link.pause()
        link.listen(self._on_message, self._pump)

    def ready(self) -> None:
        """The function `on_connect` has done its part."""
        self.is_ready = True
        self._pump()

    def detach(self) -> None:
        if self.link is not None:
            self.link.deafen()
            self.link = None
        if self._close is not None:
            self.give_up(None)

    def stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _on_message(self, message: str | bytes) -> None:
        self._inbox.append(message)
        self._held += len(message) + OVERHEAD
        if self._held >= self.options.inbox and self.link is not None:
            self.link.pause()
        self.board.readable.fire()

    def _pump_soon(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            self.loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        link = self.link
        if link is None or not self.is_ready or not link.is_open:
            return
        queue = self._queue
        while queue and not link.is_full:
            some = [queue.popleft() for _ in range(min(len(queue), WRITE_MESSAGES))]
            link.write_all(some)
        self._queued = 0 if not queue else sum(map(len, queue)) + OVERHEAD * len(queue)
        if self._queued < self.options.outbox:
            self.board.room.fire()
        if self._close is not None and not queue:
            link.write_close(*self._close)


def cost(item: str | bytes | Gap) -> int:
    """What an item of the inbox costs."""
    return OVERHEAD if isinstance(item, Gap) else len(item) + OVERHEAD
