"""A client of a log: subscribes to topics, and publishes."""

from __future__ import annotations

import asyncio
import os
import ssl as tls
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal

from .._backoff import Reconnect
from .._core.packet import MAX_LARGEST_MESSAGE, MIN_LARGEST_MESSAGE
from .._core.topics.client import Client
from .._core.topics.delivered import Position
from .._core.topics.packet import MIN_PUBLISH_WINDOW
from .._dial import Headers, Target, Token
from .._text import printable
from ._answers import Result, Stored
from ._keeper import Keeper
from ._publishing import Line, Publication, encoded
from ._subscription import Subscription
from ._tokens import Tokens
from .errors import PublishError
from .events import Event, TopicsStats

#: The smallest window of a subscription. Half of it has room for any record.
MIN_WINDOW = 262_144
MAX_WINDOW = 1 << 30
#: How long leaving ``async with`` waits for answers to published messages, in seconds.
CLOSE_WITHIN = 5.0


class Topics:
    """A client of a log: it subscribes to topics, and publishes.

    ::

        async with unstall.Topics(["wss://a.example/topics", "wss://b.example/topics"]) as topics:
            stored = await topics.publish("orders", json.dumps(order))
            async for delivery in topics.subscribe("prices.>", after=saved):
                ...

    It connects in the background to one of the addresses, beginning with a random one, and goes to the
    next when the connection is lost. Subscriptions go on from their positions. Published messages
    without an answer are sent again, and stored once.

    :param urls: one address or several of nodes that serve the same log, ``ws://`` or ``wss://``.
    :param token: who the client is, or a function, plain or ``async``, that gives it. The function is
        asked before each connection, and before the token expires, if it is a JSON Web Token that says
        when. The token is sent in the first packet, never in the URL.
    :param headers: headers of the upgrade request, or a function that gives them.
    :param reconnect: when to connect again. By default the client never gives up.
    :param ping_interval: seconds between pings. None: no pings.
    :param silence_timeout: a connection on which nothing arrives for so many seconds is lost.
    :param window: the bytes that a subscription holds for the application, from 262,144 to 1 GiB. Each
        message counts its payload, its topic, and 64. In memory of Python it may be up to seven times as
        much, if messages are short.
    :param publish_window: the bytes of published messages without an answer. Publishing waits when they
        are used up.
    :param max_message: the largest message that is received, in bytes. In place of a larger one comes a
        gap.
    :param publisher: the id (16 bytes) and the epoch of the publisher, for a program that keeps its own
        over restarts. By default a random id, so that what this object publishes is stored once.
    :param on_event: is called with each :class:`Connected`, :class:`Disconnected` and
        :class:`TokenFailed`.

    Entering ``async with`` does not wait for a connection. Leaving it waits for the answers to published
    messages, for 5 seconds at most; if an exception leaves it, not at all. Then no task, socket or timer
    of it is left.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: Token | None = None,
        headers: Headers | None = None,
        origin: str | None = None,
        proxy: str | Literal[True] | None = True,
        ssl: tls.SSLContext | None = None,
        connect_timeout: float = 10.0,
        reconnect: Reconnect | None = None,
        ping_interval: float | None = 10.0,
        silence_timeout: float = 30.0,
        window: int = 1 << 20,
        publish_window: int = 4 << 20,
        max_message: int = 16 << 20,
        publisher: tuple[bytes, int] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        urls = [urls] if isinstance(urls, str) else list(urls)
        if not urls:
            raise ValueError("no address was given")
        self._targets = [Target(url, None, headers, origin, proxy, ssl, connect_timeout) for url in urls]
        self._tokens, self._reconnect = Tokens(token), reconnect or Reconnect()
        self._liveness = (ping_interval, silence_timeout)
        self._window, self._publish_window = checked_window(window), publish_window
        self._max_message = min(max(max_message, MIN_LARGEST_MESSAGE), MAX_LARGEST_MESSAGE)
        self._publisher = publisher or (os.urandom(16), max(1, time.time_ns() // 1_000_000))
        if len(self._publisher[0]) != 16 or not 0 < self._publisher[1] < 1 << 64:
            raise ValueError("a publisher has an id of 16 bytes and an epoch from 1 to 2^64 - 1")
        self._on_event = on_event
        self._keeper_: Keeper | None = None
        self._task: asyncio.Task[None] | None = None
        self._line: Line | None = None

    async def __aenter__(self) -> Topics:
        if self._keeper_ is not None:
            raise RuntimeError("this Topics was entered before; make another one")
        core = Client(
            {
                "publisher": self._publisher[0].hex(),
                "epoch": self._publisher[1],
                "window": self._window,
                "largest_message": self._max_message,
            }
        )
        self._keeper_ = Keeper(
            core, self._targets, self._tokens, self._reconnect, self._liveness, self._on_event
        )
        self._line = Line(self._keeper_, max(self._publish_window, MIN_PUBLISH_WINDOW))
        self._task = self._keeper_.loop.create_task(self._keeper_.run(), name="unstall topics")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(CLOSE_WITHIN if error is None else 0)

    @property
    def _keeper(self) -> Keeper:
        if self._keeper_ is None:
            raise RuntimeError("use it in `async with`")
        return self._keeper_

    @property
    def _publishers(self) -> Line:
        if self._line is None:
            raise RuntimeError("use it in `async with`")
        return self._line

    # Subscribing.

    def subscribe(
        self,
        pattern: str,
        *,
        start: Literal["beginning", "now", "latest"] | None = None,
        after: Position | str | None = None,
        last: int | None = None,
        since: datetime | int | None = None,
        max_lag: float | timedelta | None = None,
        window: int | None = None,
        caught_up: bool = False,
    ) -> Subscription:
        """Subscribes to a filter: a topic, in which ``*`` stands for any token, and ``>`` at the end for
        all the rest. It returns at once.

        At most one of these says where it begins:

        - ``start="beginning"``: with the first message that the log has. This is the default.
        - ``start="now"``: behind the last one.
        - ``start="latest"``: with the latest message of each topic, and then what follows.
        - ``after``: behind a position, or its text. ``after=None`` is the same as not to say it, so that
          ``after=saved`` begins at the beginning the first time.
        - ``last``: with so many last messages of the filter, or fewer.
        - ``since``: with the first message stored at this time or later: a ``datetime``, or milliseconds
          since 1970.

        ``after`` may come together with ``start``, which then counts if ``after`` is None.

        :param max_lag: seconds. If the next message is older than this, the node may leave out what is
            not sent, and go on at the end of the log, with a gap.
        :param window: as in :class:`Topics`, for this subscription.
        :param caught_up: also deliver :class:`CaughtUp`, once, when everything is delivered that was in
            the log when the subscription began.

        Raises :class:`ValueError` if the filter or an argument is not valid.
        """
        begin = start_of(start, after, last, since)
        lag = max_lag.total_seconds() if isinstance(max_lag, timedelta) else max_lag
        if lag is not None and not 0 < lag <= 315_360_000:
            raise ValueError("max_lag is more than 0 and at most ten years")
        checked = None if window is None else checked_window(window)
        millis = 0 if lag is None else max(1, round(lag * 1000))
        return Subscription(self._keeper, pattern, begin, millis, checked, caught_up)

    # Publishing.

    async def publish(
        self, topic: str, message: str | bytes | bytearray | memoryview, *, final: bool = False
    ) -> Stored:
        """Publishes a message, and waits until it is safe. While there is no connection, it waits for
        one. ``str`` is text, everything else is binary.

        :param final: the message is the last one of its topic. Subscriptions to exactly this topic end
            behind it.

        If it is cancelled, the message may be published or not. It is published at most once.

        Raises :class:`PublishError`, which says whether the message may be stored all the same.
        """
        result = await self._publishers.publish_one(encoded(topic, message, final))
        if isinstance(result, PublishError):
            raise result
        return result

    async def publish_many(self, messages: Iterable[Publication]) -> list[Result]:
        """Publishes messages in order, many in a packet, and waits until all are answered. A message is
        ``(topic, data)``, or ``(topic, data, final)``.

        Gives for each, in the same order, a :class:`Stored` or a :class:`PublishError`; it raises
        neither. It takes more than a round trip only if the publish window is used up.

        If it is cancelled, each message may be published or not, each at most once.
        """
        return await self._publishers.publish([encoded(*message) for message in messages])

    # The client.

    def stats(self) -> TopicsStats:
        """What the client counts, and how it stands."""
        keeper = self._keeper
        publisher, welcomed = keeper.core.publisher, keeper.core.welcomed
        return TopicsStats(
            log=welcomed.log if welcomed else None,
            node=printable(welcomed.name) if welcomed else None,
            connections=keeper.connections,
            subscriptions=len(keeper.readers),
            unanswered=publisher.count(),
            unanswered_bytes=publisher.held,
            stored=keeper.answers.stored,
            refused=keeper.answers.refused,
            unknown=keeper.answers.unknown,
        )

    async def close(self, within: float = CLOSE_WITHIN) -> None:
        """Ends the client and its subscriptions. First it waits for the answers to published messages,
        for so many seconds at most. Those without an answer then get their :class:`PublishError`.

        Leaving ``async with`` does this. If it is cancelled, it ends the client at once.
        """
        keeper, line, task = self._keeper, self._publishers, self._task
        assert task is not None
        try:
            if within > 0 and keeper.ended is None:
                await line.settled(within)
        finally:
            task.cancel()
            await over(task)
            keeper.end("it was closed")


async def over(task: asyncio.Task[None]) -> None:
    """Waits until a cancelled task is over, even if the caller is cancelled meanwhile: the task does
    nothing that takes long."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    with suppress(asyncio.CancelledError):
        task.result()
    if cancelled is not None:
        raise cancelled


def start_of(
    start: str | None, after: Position | str | None, last: int | None, since: datetime | int | None
) -> dict[str, Any]:
    """The start of the wire."""
    if (after is not None) + (last is not None) + (since is not None) > 1:
        raise ValueError("a subscription has one start; pass one of after, last and since")
    if start is not None and (last is not None or since is not None):
        raise ValueError("a subscription has one start; pass start without last and since")
    if after is not None:
        place = Position.parse(after) if isinstance(after, str) else after
        return {"name": "after", "log": place.log, "offset": place.offset, "time": place.time}
    if last is not None:
        if not 1 <= last < 1 << 32:
            raise ValueError("last is from 1 to 2^32 - 1")
        return {"name": "last", "count": last}
    if since is not None:
        millis = round(since.timestamp() * 1000) if isinstance(since, datetime) else since
        if not 0 <= millis < 1 << 62:
            raise ValueError("since is from 1970 on")
        return {"name": "since", "time": millis}
    if start == "latest":
        return {"name": "latest", "log": bytes(16), "end": 0, "time": 0, "offset": 0}
    if start not in (None, "beginning", "now"):
        raise ValueError("start is 'beginning', 'now' or 'latest'")
    return {"name": start or "beginning"}


def checked_window(window: int) -> int:
    """The nearest window that is allowed."""
    return min(max(window, MIN_WINDOW), MAX_WINDOW)
