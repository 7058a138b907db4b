"""What the application reads of a topic."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any

from .._core.topics.delivered import Batch, CaughtUp, Ended, Gap, Message, Position
from .._core.topics.names import is_filter
from .._text import printable
from ._keeper import EXPIRED, Keeper
from .errors import SubscriptionError
from .events import SubscriptionStats

Delivery = Message | Gap | CaughtUp


class Subscription:
    """Delivers the messages of a filter, once and in order, over lost connections and restarts.

    It is an asynchronous iterator of :class:`Message`, :class:`Gap`, and, if you asked for it,
    :class:`CaughtUp`. It ends behind the final message of a topic, if the filter is that topic.

    It holds at most its window in memory, and one message. An application that stops receiving stalls
    this subscription alone. Closing it, or dropping the last reference, ends it.
    """

    def __init__(
        self,
        keeper: Keeper,
        pattern: str,
        start: dict[str, Any],
        max_lag: int,
        window: int | None,
        caught_up: bool,
    ) -> None:
        name = pattern.encode()
        if not is_filter(name):
            raise ValueError(
                f"{pattern!r} is not a filter; it is tokens with dots between, in which * stands for any "
                "token, and > at the end for all the rest"
            )
        self._keeper, self._loop = keeper, keeper.loop
        self._batch: Iterator[Message] = iter(())
        #: The cost of the batch, and how many messages were in batches.
        self._cost = self._messages = 0
        self._last: Message | None = None
        self._place: Position | None = None
        self._wants_mark = caught_up
        self._is_over = False
        self._error: SubscriptionError | None = None
        self._number = keeper.core.subscribe(name, start, max_lag, window)
        # The keeper knows only the place of the waiter, so that a subscription that is dropped ends.
        self._news = _News()
        keeper.readers[self._number] = self._news.wake
        keeper.flush()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """Everything, up to the end. It may be left and begun again: nothing is lost. Raises as
        :meth:`recv` does."""
        while True:
            for message in self._batch:
                self._last = message
                yield message
            delivery = await self._next()
            if delivery is None:
                return
            yield delivery

    async def __anext__(self) -> Delivery:
        message = next(self._batch, None)
        if message is not None:
            self._last = message
            return message
        delivery = await self._next()
        if delivery is None:
            raise StopAsyncIteration
        return delivery

    async def recv(self) -> Delivery | None:
        """The next message, gap or mark. None when the topic is complete, or after :meth:`close`.

        If it is cancelled, nothing is lost.

        Raises :class:`SubscriptionError` after everything that arrived before, and then each time.
        """
        message = next(self._batch, None)
        if message is not None:
            self._last = message
            return message
        return await self._next()

    async def recv_batch(self) -> list[Delivery]:
        """Everything that has arrived, in order, and at least one delivery. Empty when the topic is
        complete, or after :meth:`close`. It takes less time for each message than :meth:`recv`.

        If it is cancelled, nothing is lost. It raises as :meth:`recv` does.
        """
        first = await self.recv()
        if first is None:
            return []
        deliveries: list[Delivery] = [first]
        while True:
            messages = list(self._batch)
            if messages:
                self._last = messages[-1]
                deliveries += messages
            if self._error is not None or not self._has_item():
                return deliveries
            delivery = self._take()
            if delivery is not None:
                deliveries.append(delivery)

    @property
    def position(self) -> Position | None:
        """Where the application stands: behind what it has received last. Save it to go on from here
        with ``after=``. None before anything was delivered.
        """
        return self._last.position if self._last is not None else self._place

    def stats(self) -> SubscriptionStats:
        """How the subscription stands."""
        core = self._keeper.core.subscriptions.get(self._number)
        waiting = 0 if core is None else core.held
        is_open = core is not None and core.state in ("asked", "subscribed")
        ends = [place.offset for place in (self.position, core and core.position) if place]
        ends += [core.end] if core is not None and core.end is not None else []
        welcomed = self._keeper.core.welcomed
        ends += [welcomed.last] if welcomed is not None else []
        place = self.position
        behind = place.offset if place is not None else 0
        return SubscriptionStats(
            messages=self._messages - self._batch.__length_hint__(),  # type: ignore[attr-defined]
            waiting_bytes=waiting,
            partial_bytes=core.part_bytes if core is not None else 0,
            credit_bytes=core.granted - core.received if core is not None and is_open else 0,
            lag=max(ends) - behind if ends else None,
        )

    def close(self) -> None:
        """Ends the subscription. What has arrived and was not received is gone. :attr:`position` stays."""
        if not self._is_over:
            self._finish()
            self._news.wake()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_is_over", True) or self._loop.is_closed():
            return
        # The last reference may go in any thread.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(forget, self._keeper, self._number)

    async def _next(self) -> Delivery | None:
        while True:
            if self._has_item():
                delivery = self._take()
                if delivery is not None:
                    return delivery
                continue
            if self._error is not None:
                raise self._error
            if self._is_over:
                return None
            if self._keeper.ended is not None:
                self._error = SubscriptionError("client ended", self._keeper.ended)
                continue
            await self._news.wait(self._loop)

    def _has_item(self) -> bool:
        if self._is_over:
            return False
        if self._cost:
            cost, self._cost = self._cost, 0
            if self._keeper.core.taken(self._number, cost):
                self._keeper.flush()
        return bool(self._keeper.core.subscriptions[self._number].items)

    def _take(self) -> Delivery | None:
        """The next thing that is there, if the application gets to see it."""
        item = self._keeper.core.next_item(self._number)
        if isinstance(item, Batch):
            self._batch, self._cost = iter(item.messages), item.cost
            self._messages += len(item.messages)
            self._last = next(self._batch)
            return self._last
        if isinstance(item, Gap):
            self._last, self._place = None, item.position
            return item
        if isinstance(item, CaughtUp):
            self._last, self._place = None, item.position
            # It comes again with each connection.
            told, self._wants_mark = self._wants_mark, False
            return item if told else None
        if isinstance(item, Ended):
            self._ended(item)
        return None

    def _ended(self, end: Ended) -> None:
        keeper, elsewhere = self._keeper, None
        if end.reason == "unavailable":
            elsewhere = "the node cannot read the log"
        elif end.reason == "expired" and keeper.tokens.are_renewed:
            elsewhere = EXPIRED
        if elsewhere is not None:
            # The client may have left that node already.
            if keeper.core.resubscribe(self._number):
                keeper.leave(elsewhere)
            keeper.flush()
            return
        if end.reason not in ("final", "unsubscribed"):
            self._error = SubscriptionError(end.reason, printable(end.text))
        self._finish()

    def _finish(self) -> None:
        self._is_over = True
        # An iteration that is under way ends too.
        self._messages -= sum(1 for _ in self._batch)
        self._cost = 0
        forget(self._keeper, self._number)


class _News:
    """Wakes the one who waits for a subscription."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiter is not None:
            raise RuntimeError("another task is receiving from this subscription already")
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


def forget(keeper: Keeper, number: int) -> None:
    """Ends a subscription of which nothing more is wanted."""
    keeper.readers.pop(number, None)
    if number in keeper.core.subscriptions:
        keeper.core.forget(number)
        keeper.flush()
