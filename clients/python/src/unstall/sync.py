"""Sessions and topics for programs without asyncio.

```python
from unstall.sync import connect

with connect("wss://feed.example/stream") as session:
    session.send("subscribe")
    for message in session:
        print(message)
```

An event loop in a background thread keeps the session connected and alive, whatever the program does
meanwhile. Several threads may use one session. Each call costs a change of threads: for many messages
`send_many` and `recv_batch` are faster, and asyncio is faster still.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import ParamSpec

from ._errors import Closed, Returned, Undelivered
from ._events import Gap, Stats
from ._session import CloseReport, Connect, Position
from ._session import Session as AsyncSession
from ._session import connect as connect_async
from ._thread import LoopThread
from .topics._sync import Subscription, Topics

__all__ = ["Session", "Subscription", "Topics", "connect"]

P = ParamSpec("P")
Item = str | bytes | Gap


class Session:
    """A session, as `unstall.Session` describes it. All methods return when their work is done."""

    def __init__(self, thread: LoopThread, session: AsyncSession) -> None:
        self._thread, self._session = thread, session
        #: What was received for a call that was interrupted.
        self._kept: deque[Item] = deque()
        self._report: CloseReport | None = None
        self._end = threading.Lock()

    def __iter__(self) -> Iterator[Item]:
        """Messages and gaps, up to a normal close. Raises why the session was lost for good."""
        while True:
            try:
                yield self.recv()
            except Closed:
                return

    def recv(self, timeout: float | None = None) -> Item:
        """The next message or gap. Raises `TimeoutError` after so many seconds; no message is lost then.
        Raises `Closed` after a normal close."""
        if self._kept:
            return self._kept.popleft()
        return self._thread.run(self._session.recv(), timeout, self._kept.append)

    def recv_batch(self, timeout: float | None = None) -> list[Item]:
        """All messages that can be had at once, at least one; an empty list after a normal close. They
        count as received."""
        if self._kept:
            return [self._kept.popleft()]
        return self._thread.run(self._session.recv_batch(), timeout, self._kept.extend)

    def send(self, message: str | bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Sends a message. Raises `TimeoutError` if there is no room for so many seconds; the message was
        not accepted then."""
        self._thread.run(self._session.send(message), timeout)

    def send_many(self, messages: Iterable[str | bytes]) -> None:
        """Sends several messages with one change of threads."""
        self._thread.run(self._session.send_many(list(messages)))

    def delivered(self, timeout: float | None = None) -> None:
        """Waits until the peer's application has received everything that was accepted so far."""
        self._thread.run(self._session.delivered(), timeout)

    def take_undelivered(self) -> list[Returned]:
        """The messages that lost sessions did not deliver, in order, each with its fate."""
        return self._thread.call(self._session.take_undelivered)

    @property
    def position(self) -> Position:
        """The place behind the message that was received last."""
        return self._thread.call(lambda: self._session.position)

    def acknowledge(self, position: Position | None = None) -> None:
        """The application has processed what it received. Only with `acknowledge_by_hand`."""
        self._thread.call(lambda: self._session.acknowledge(position))

    @property
    def is_session(self) -> bool:
        """Whether the other end speaks the protocol of sessions."""
        return self._session.is_session

    @property
    def is_closed(self) -> bool:
        """Whether it has ended for good."""
        return self._session.is_closed

    def stats(self) -> Stats:
        """Counts, and what is held now."""
        return self._thread.call(self._session.stats)

    def close(self, code: int = 1000, reason: str = "", within: float | None = None) -> CloseReport:
        """Closes, and ends the background thread. What was accepted is delivered first, for `within`
        seconds at most (default `close_timeout`). Called again, it gives the same report."""
        with self._end:
            if self._report is None:
                try:
                    self._report = self._thread.run(self._session.close(code, reason, within))
                finally:
                    self._thread.stop()
            return self._report

    def abort(self) -> None:
        """Ends at once. `close` then says what was not delivered."""
        self._thread.call(self._session.abort)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes. Raises `Undelivered` if messages were not delivered and the block did not fail itself.
        After Ctrl-C it does not wait."""
        if error is not None and not isinstance(error, Exception) and not self.is_closed:
            self.abort()
        report = self.close()
        if error is None and report.undelivered:
            why = "it was closed" if report.why is None else str(report.why)
            raise Undelivered(why, report.undelivered)


def of(function: Callable[P, Connect]) -> Callable[P, Session]:
    """`connect` with the settings of the asynchronous one."""

    def connect(*arguments: P.args, **settings: P.kwargs) -> Session:
        thread = LoopThread()

        async def open_one() -> AsyncSession:
            return await function(*arguments, **settings)

        try:
            return Session(thread, thread.run(open_one()))
        except BaseException:
            thread.stop()
            raise

    connect.__doc__ = (
        "Connects as `unstall.connect` does, with the same settings and errors. Functions that are "
        "settings are called in the background thread."
    )
    return connect


connect = of(connect_async)
