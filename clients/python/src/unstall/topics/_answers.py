"""Messages that were published and have no answer, and who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from .._core.topics.delivered import Position
from .._core.topics.events import Refusal, Unknown
from .._core.topics.events import Stored as StoredRun
from .._text import printable
from .errors import PublishError


class Stored(NamedTuple):
    """A message is stored and safe."""

    #: Its place in the log. None: it was stored before, by an earlier sending whose answer was lost, and
    #: the log no longer knows where.
    offset: int | None
    #: How safe it is: 0 in memory of one process; 1 on the disk of one machine, synced; 2 in memory of a
    #: quorum of machines, or synced later; 3 on the disks of a quorum, synced; 4 on one machine, synced
    #: later.
    durability: int
    #: The id of the log.
    log: bytes

    @property
    def position(self) -> Position | None:
        """Behind the message. Subscribe after it to receive what comes later."""
        return None if self.offset is None else Position(self.log, self.offset, 0)


Result = Stored | PublishError


class Pending:
    """The results of messages that were published together."""

    __slots__ = ("future", "results", "unanswered")

    def __init__(self, count: int, future: asyncio.Future[None]) -> None:
        self.results: list[Result | None] = [None] * count
        self.future = future
        #: Results that are still to come.
        self.unanswered = count

    def answer(self, at: int, results: list[Result]) -> None:
        self.results[at : at + len(results)] = results
        self.unanswered -= len(results)
        if not self.unanswered and not self.future.done():
            self.future.set_result(None)


class Answers:
    """Who waits for which number. Answers come in the order of the numbers."""

    def __init__(self) -> None:
        #: The batch, where in it, and how many messages.
        self._line: deque[tuple[Pending, int, int]] = deque()
        self.stored = self.refused = self.unknown = 0

    def expect(self, pending: Pending, at: int, count: int) -> None:
        """The next numbers are these messages of the batch."""
        if count:
            self._line.append((pending, at, count))

    def is_empty(self) -> bool:
        return not self._line

    def on_stored(self, run: StoredRun, log: bytes) -> None:
        offset, left, durability = run.offset, run.amount, run.durability
        self.stored += left
        new = tuple.__new__
        while left:
            pending, at, count = self._next(left)
            places = range(offset, offset + count) if offset else [None] * count
            pending.answer(at, [new(Stored, (place, durability, log)) for place in places])
            left -= count
            offset = offset and offset + count

    def on_refused(self, refusal: Refusal) -> None:
        self.refused += 1
        text = printable(refusal.text)
        error = PublishError(refusal.reason, may_be_stored=refusal.may_be_stored, text=text)
        pending, at, _ = self._next(1)
        pending.answer(at, [error])

    def on_unknown(self, unknown: Unknown) -> None:
        for _ in range(unknown.amount):
            self.give_up(True, "")

    def give_up(self, may_be_stored: bool, why: str) -> None:
        """There will be no answer to the next message."""
        self.unknown += may_be_stored
        reason = "no answer" if may_be_stored else "not sent"
        pending, at, _ = self._next(1)
        pending.answer(at, [PublishError(reason, may_be_stored=may_be_stored, text=why)])

    def _next(self, most: int) -> tuple[Pending, int, int]:
        pending, at, count = self._line.popleft()
        if count > most:
            self._line.appendleft((pending, at + most, count - most))
            count = most
        return pending, at, count
