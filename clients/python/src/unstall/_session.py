"""What an application holds: `connect`, and the session that it gives."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from ._backoff import Reconnect
from ._dial import Headers, Target, Token
from ._errors import Closed, Error, NotASession, Returned, SessionLost, Undelivered
from ._events import Event, Gap, Stats
from ._keeper import Keeper
from ._options import Options, Setup

#: How many batches are handed out before the event loop has a turn.
BATCHES = 16


@dataclass(frozen=True)
class CloseReport:
    """How it ended."""

    #: It was closed, by either side, and everything that was accepted here is delivered.
    clean: bool
    #: Why it ended, if it was not closed.
    why: Error | None
    #: Messages that were accepted and that the peer did not acknowledge, in the order of sending.
    undelivered: list[Returned]


@dataclass(frozen=True)
class Position:
    """A place in the received stream of one session."""

    session: int
    record: tuple[int, int]


class Session:
    """A stream of messages in both directions that outlives its connections.

    It is made by `connect`. If the other end speaks the protocol of sessions (`is_session`), each message
    is delivered once and in order, over any number of connections, with bounded memory on both sides. If
    not, it is a plain WebSocket that is connected again after a loss.

    All methods belong to one event loop. Every coroutine can be cancelled at any await: no message is lost
    or sent twice.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        #: What is received next, the first one at the end, and where it comes from.
        self._items: list[str | bytes | Gap] = []
        self._batches = 0

    # ---- Receiving ----

    def __aiter__(self) -> Session:
        return self

    async def __anext__(self) -> str | bytes | Gap:
        """The next message, or a gap. The iteration ends after a normal close. If the session is lost for
        good, it raises the reason."""
        items = self._items
        if items:
            return items.pop()
        if await self._fill():
            return self._items.pop()
        raise StopAsyncIteration

    async def recv(self) -> str | bytes | Gap:
        """The next message, text as `str` and binary as `bytes`, or a `Gap` where messages may be missing.

        Raises `Closed` after a normal close, or the reason of the end: `SessionLost` or `ConnectionLost`.
        If it is cancelled, no message is lost.
        """
        if self._items or await self._fill():
            return self._items.pop()
        raise Closed("the peer has closed: there is nothing more to receive")

    async def recv_batch(self) -> list[str | bytes | Gap]:
        """All messages that can be had at once, at least one; an empty list after a normal close. They count
        as received. If it is cancelled, no message is lost."""
        if not self._items and not await self._fill():
            return []
        batch = self._items[::-1]
        self._items.clear()
        return batch

    async def _fill(self) -> bool:
        """Waits until there is something to receive. False: the end."""
        keeper = self._keeper
        keeper.reader = asyncio.current_task()
        self._batches += 1
        if self._batches >= BATCHES:
            self._batches = 0
            await asyncio.sleep(0)
        while not self._items:
            items = keeper.take()
            if items is not None:
                self._items = items
            elif keeper.is_ended:
                if keeper.why is not None:
                    raise keeper.why.with_traceback(None)
                return False
            else:
                self._batches = 0
                await keeper.board.readable.wait()
        return True

    # ---- Acknowledgement ----

    @property
    def position(self) -> Position:
        """The place behind the message that was received last."""
        return Position(*self._keeper.position())

    def acknowledge(self, position: Position | None = None) -> None:
        """The application has processed what it received, or what it received up to `position`. Only with
        `acknowledge_by_hand`. On a plain connection, and for an earlier session, it has no effect."""
        if not self._keeper.options.acknowledge_by_hand:
            raise RuntimeError("acknowledge needs connect(..., acknowledge_by_hand=True)")
        self._keeper.acknowledge((position.session, position.record) if position else None)

    # ---- Sending ----

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Sends a message: `str` as text, bytes as binary. It waits while there is no room.

        When it returns, the message is accepted: it is delivered, or it comes back. `delivered` waits for the
        delivery. If it is cancelled, the message was not accepted.

        Raises `Closed` if it has ended or is closing, and `MessageTooLarge`.
        """
        if isinstance(message, str):
            is_text, payload = True, message.encode()
        else:
            is_text, payload = False, message if type(message) is bytes else bytes(message)
        while not self._keeper.accept(is_text, payload):
            await self._keeper.board.room.wait()

    async def send_many(self, messages: Iterable[str | bytes]) -> None:
        """Sends several messages, each as `send` does. If it is cancelled or fails, the first ones may be
        accepted, without a hole."""
        for message in messages:
            await self.send(message)

    async def delivered(self) -> None:
        """Waits until the peer's application has received everything that was accepted so far (with
        `acknowledge_by_hand` at the peer: until it has processed that).

        Raises the reason if the session ends before, and `NotASession` on a plain connection.
        """
        keeper = self._keeper
        traffic = keeper.session()
        if traffic is None:
            keeper.check_open()
            raise NotASession("a plain connection does not know what was delivered: check `is_session`")
        outgoing = traffic.core.outgoing
        last = outgoing.last
        while outgoing.acked < last:
            if traffic.is_over:
                raise traffic.why or SessionLost("aborted", "it ended before everything was delivered")
            await keeper.board.progress.wait()

    def take_undelivered(self) -> list[Returned]:
        """The messages that lost sessions did not deliver, in order, each with its fate. They are given
        once. After the end it has those of the last session too."""
        return self._keeper.take_undelivered()

    # ---- What it is, and what happens ----

    @property
    def is_session(self) -> bool:
        """Whether the other end speaks the protocol of sessions. If not, messages can be lost with a
        connection: a `Gap` then stands in the stream."""
        return self._keeper.is_session

    @property
    def is_closed(self) -> bool:
        """Whether it has ended for good."""
        return self._keeper.is_ended

    def events(self) -> AsyncIterator[Event]:
        """What happens, from the oldest event that is kept (256 are) up to `Ended`."""
        return self._keeper.board.events.listen()

    def stats(self) -> Stats:
        """Counts, and what is held now."""
        return self._keeper.stats(len(self._items))

    # ---- The end ----

    async def close(self, code: int = 1000, reason: str = "", within: float | None = None) -> CloseReport:
        """Closes. What was accepted is delivered first, for `within` seconds at most (default
        `close_timeout`).

        If another task receives, it goes on to receive what the peer had sent. Otherwise that counts as not
        received, and the peer's application gets it back. If it is cancelled, everything ends at once.
        """
        keeper = self._keeper
        keeper.begin_close(code, reason, keeper.options.close_timeout if within is None else within)
        await keeper.wait_ended()
        return CloseReport(keeper.why is None, keeper.why, self.take_undelivered())

    def abort(self, reason: str = "its application aborted it") -> None:
        """Ends at once. The peer is told, if there is a connection. `take_undelivered` has what was not
        delivered."""
        self._keeper.abort(SessionLost("aborted", reason))

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes. Raises `Undelivered` if messages were not delivered and the block did not fail itself. If
        the block was cancelled, it does not wait."""
        if error is not None and not isinstance(error, Exception):
            self._keeper.kill(SessionLost("aborted", "its application was cancelled"))
            return
        report = await self.close()
        if error is None and report.undelivered:
            why = "it was closed" if report.why is None else str(report.why)
            raise Undelivered(why, report.undelivered)


class Connect:
    """What `connect` returns: `async with` it, or `await` it."""

    def __init__(self, target: Target, options: Options) -> None:
        self._target, self._options = target, options
        self._session: Session | None = None

    async def _open(self) -> Session:
        keeper = Keeper(self._target, self._options)
        await keeper.open()
        return Session(keeper)

    def __await__(self) -> Generator[object, None, Session]:
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._open()
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.__aexit__(kind, error, traceback)


def connect(
    url: str,
    *,
    token: Token | None = None,
    headers: Headers | None = None,
    origin: str | None = None,
    proxy: str | Literal[True] | None = True,
    ssl: ssl_module.SSLContext | None = None,
    connect_timeout: float = 10.0,
    require_session: bool = False,
    plain: bool = False,
    acknowledge_by_hand: bool = False,
    fresh_sessions: bool = True,
    reconnect: Reconnect | None = Reconnect(),  # noqa: B008
    on_connect: Callable[[Setup], Awaitable[None]] | None = None,
    on_event: Callable[[Event], None] | None = None,
    max_message: int = 16 << 20,
    outbox: int = 256 << 10,
    inbox: int = 4 << 20,
    replay: int = 32 << 20,
    window: int = 8 << 20,
    session_life: float = 120.0,
    ping_interval: float | None = 10.0,
    silence_timeout: float = 30.0,
    close_timeout: float = 5.0,
) -> Connect:
    """Connects to a WebSocket server, and connects again whenever the connection is lost.

    ```python
    async with unstall.connect("wss://feed.example/stream") as session:
        await session.send("subscribe")
        async for message in session:
            ...
    ```

    `await connect(...)` gives the session too; it then has to be closed. All times are seconds, all sizes are
    bytes.

    - `token`: goes into the header `Authorization: Bearer …`. A function, also an async one, is called for
      each attempt.
    - `headers`: more headers, or a function that makes them for each `Attempt`.
    - `proxy`: True takes the one that the environment names, None takes none.
    - `ssl`: a context for `wss://`; by default the system's certificates are trusted.
    - `connect_timeout`: for name resolution, TCP, proxy, TLS and the handshake together.
    - `require_session`, `plain`: only a session, or only a plain connection. By default a session is offered,
      and `Session.is_session` says what it is.
    - `acknowledge_by_hand`: a message counts as delivered once `Session.acknowledge` says so.
    - `fresh_sessions`: if a session is lost, another one follows, and a `Gap` marks the place. What was not
      delivered comes back from `take_undelivered`; what is sent from then on goes into the new session. With
      False the lost session is the end: `recv` raises `SessionLost`, and `send` raises `Closed`.
    - `reconnect`: when to connect again; None: never.
    - `on_connect`: a function that runs on each plain connection and in each new session, before queued
      messages are sent: for subscribing again.
    - `on_event`: a function that is called with each event; it must return at once.
    - `max_message`: the largest message, received or sent.
    - `outbox`: what waits for the connection before `send` waits.
    - `inbox`: what waits for the application on a plain connection before the reading pauses.
    - `replay`: what a session keeps until it is acknowledged, before `send` waits.
    - `window`: the most that a session's peer may send before the application receives it.
    - `session_life`: how long a session lives without a connection.
    - `ping_interval`, `silence_timeout`: a connection is lost if nothing arrives for so long.
    - `close_timeout`: how long closing may take.

    Raises `ConnectError` if the first attempt fails; its `retryable` says whether another one may succeed.
    Raises `ValueError` at once if a setting is out of its range. If it is cancelled, nothing stays behind.
    """
    options = Options(
        require_session=require_session,
        plain=plain,
        acknowledge_by_hand=acknowledge_by_hand,
        fresh_sessions=fresh_sessions,
        reconnect=reconnect,
        on_connect=on_connect,
        on_event=on_event,
        max_message=max_message,
        outbox=outbox,
        inbox=inbox,
        replay=replay,
        window=window,
        session_life=session_life,
        ping_interval=ping_interval,
        silence_timeout=silence_timeout,
        close_timeout=close_timeout,
    )
    target = Target(url, token, headers, origin, proxy, ssl, connect_timeout)
    return Connect(target, options)
