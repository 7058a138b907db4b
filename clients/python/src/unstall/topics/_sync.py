"""Topics for programs without asyncio."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from .._core.topics.delivered import Position
from .._thread import LoopThread
from ._answers import Result, Stored
from ._client import CLOSE_WITHIN
from ._client import Topics as AsyncTopics
from ._publishing import Publication
from ._subscription import Delivery
from ._subscription import Subscription as AsyncSubscription
from .events import SubscriptionStats, TopicsStats


class Subscription:
    """A subscription, as :class:`unstall.topics.Subscription` describes it. It is an iterator."""

    def __init__(self, thread: LoopThread, subscription: AsyncSubscription) -> None:
        self._thread, self._subscription = thread, subscription
        #: What was received and not handed over.
        self._ready: deque[Delivery] = deque()
        self._position = subscription.position

    def __iter__(self) -> Iterator[Delivery]:
        while (delivery := self.recv()) is not None:
            yield delivery

    def recv(self, timeout: float | None = None) -> Delivery | None:
        """The next message, gap or mark. None when the topic is complete. Raises ``TimeoutError`` after
        so many seconds; nothing is lost then."""
        if not self._ready:
            self._ready.extend(self._batch(timeout))
        if not self._ready:
            return None
        delivery = self._ready.popleft()
        self._position = delivery.position
        return delivery

    def recv_batch(self, timeout: float | None = None) -> list[Delivery]:
        """Everything that has arrived, at least one delivery; an empty list when the topic is complete."""
        batch = list(self._ready) or self._batch(timeout)
        self._ready.clear()
        if batch:
            self._position = batch[-1].position
        return batch

    def _batch(self, timeout: float | None) -> list[Delivery]:
        return self._thread.run(self._subscription.recv_batch(), timeout, self._ready.extend)

    @property
    def position(self) -> Position | None:
        """Behind what was received last. Save it to go on from here with ``after=``."""
        return self._position

    def stats(self) -> SubscriptionStats:
        """How the subscription stands."""
        return self._thread.call(self._subscription.stats)

    def close(self) -> None:
        """Ends the subscription."""
        self._thread.call(self._subscription.close)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Topics:
    """A client of a log, for programs without asyncio, with the settings of
    :class:`unstall.topics.Topics`.

    ::

        with unstall.sync.Topics("wss://hub.example/topics") as topics:
            topics.publish("greetings", "hello")
            for delivery in topics.subscribe("greetings"):
                print(delivery)

    An event loop in a background thread keeps it connected. Several threads may use it. Each call costs a
    change of threads: ``publish_many`` and ``recv_batch`` cost one for many messages. Functions that are
    settings are called in the background thread.
    """

    def __init__(self, urls: str | Sequence[str], **settings: Any) -> None:
        self._topics = AsyncTopics(urls, **settings)
        self._thread: LoopThread | None = None

    def __enter__(self) -> Topics:
        self._thread = LoopThread()
        try:
            self._thread.run(self._topics.__aenter__())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(CLOSE_WITHIN if error is None else 0)

    @property
    def _loop(self) -> LoopThread:
        if self._thread is None:
            raise RuntimeError("use it in `with`")
        return self._thread

    def subscribe(self, pattern: str, **settings: Any) -> Subscription:
        """Subscribes, with the settings of :meth:`unstall.topics.Topics.subscribe`."""
        make = functools.partial(self._topics.subscribe, pattern, **settings)
        return Subscription(self._loop, self._loop.call(make))

    def publish(
        self, topic: str, message: str | bytes | bytearray | memoryview, *, final: bool = False
    ) -> Stored:
        """Publishes a message, and waits until it is safe. Raises :class:`PublishError`."""
        return self._loop.run(self._topics.publish(topic, message, final=final))

    def publish_many(self, messages: Iterable[Publication]) -> list[Result]:
        """Publishes messages in order, and waits until all are answered. Gives for each a
        :class:`Stored` or a :class:`PublishError`."""
        return self._loop.run(self._topics.publish_many(list(messages)))

    def stats(self) -> TopicsStats:
        """What the client counts, and how it stands."""
        return self._loop.call(self._topics.stats)

    def close(self, within: float = CLOSE_WITHIN) -> None:
        """Ends the client, and its thread. First it waits for the answers to published messages, for so
        many seconds at most."""
        thread, self._thread = self._loop, None
        try:
            thread.run(self._topics.close(within))
        finally:
            thread.stop()
