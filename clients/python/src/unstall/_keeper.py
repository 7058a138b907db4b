"""The background task that keeps a session or a plain connection connected."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable
from typing import Any, Literal

from ._dial import Target
from ._dialer import SUBPROTOCOL, Dialer, first_of
from ._errors import Closed, ConnectError, ConnectionLost, Error, Returned, SessionLost
from ._events import (
    Connected,
    Disconnected,
    Ended,
    Gap,
    SessionEnded,
    SessionNotSpoken,
    Stats,
    UndeliveredDropped,
)
from ._link import LINGER, Link, logger
from ._options import OVERHEAD, SETUP_TIMEOUT, Options
from ._plain import PlainTraffic
from ._traffic import PASSING, Board, SessionTraffic, is_followed

Traffic = SessionTraffic | PlainTraffic
#: The server agreed to sessions and closes with one of these: it does not speak them.
MISUNDERSTOOD = (1002, 1003, 1007)


class Setup:
    """The new connection, as the function `on_connect` uses it."""

    def __init__(self, traffic: Traffic, link: Link) -> None:
        self._traffic, self._link = traffic, link

    @property
    def is_session(self) -> bool:
        return self._traffic.is_session

    def send(self, message: str | bytes) -> None:
        """Sends before all queued messages. Raises `Closed` if the connection is lost."""
        if not self._link.is_open:
            raise Closed("the connection was lost while on_connect ran: the message was not accepted")
        if isinstance(self._traffic, PlainTraffic):
            self._link.write(message)
        else:
            is_text = isinstance(message, str)
            payload = message.encode() if isinstance(message, str) else bytes(message)
            if not self._traffic.accept(is_text, payload):
                raise Closed("on_connect sends more than a session takes at once: send the rest later")


class Keeper:
    """What a `Session` stands on: the current traffic, and the task that connects it."""

    def __init__(self, target: Target, options: Options) -> None:
        self.options = options
        self.board = Board(options)
        self.board.leave = self._leave
        self.loop = asyncio.get_running_loop()
        self.traffic: Traffic | None = None
        self.is_session = False
        #: It has ended for good; why, if it was not closed.
        self.is_ended = False
        self.why: Error | None = None
        #: The task that received last.
        self.reader: asyncio.Task[Any] | None = None
        #: What earlier traffic has left for the application: lists, the first item at their end.
        self._leftover: deque[list[str | bytes | Gap]] = deque()
        self._returned: deque[Returned] = deque()
        self._returned_bytes = 0
        self._dialer = Dialer(target, options, self.board.events)
        #: The number of the session; what was sent and received; connections made.
        self._number = self._sent = self._received = self._connections = 0
        self._closing = False
        self._stop: asyncio.Future[None] = self.loop.create_future()
        self._first: asyncio.Future[ConnectError | None] = self.loop.create_future()
        self._deadline: asyncio.TimerHandle | None = None
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        #: Connections since the last one on which a session was opened.
        self._refused = 0

    # ---- The application ----

    async def open(self) -> None:
        """Connects. Raises `ConnectError`."""
        self._task = self.loop.create_task(self._run(), name="unstall")
        try:
            await asyncio.wait({self._first})
        except asyncio.CancelledError:
            self.kill(SessionLost("aborted", "connecting was cancelled"))
            raise
        error = self._first.result()
        if error is not None:
            raise error

    def accept(self, is_text: bool, payload: bytes) -> bool:
        """Whether the message was accepted. False: wait for room."""
        traffic = self.traffic
        if traffic is None or self.is_ended:
            self.check_open()
            return False
        try:
            accepted = traffic.accept(is_text, payload)
        except Closed:
            if self._will_follow(traffic):
                return False
            raise
        self._sent += accepted
        return accepted

    def check_open(self) -> None:
        if self.is_ended or self._closing:
            raise Closed("it has ended or is closing: the message was not accepted") from self.why

    def take(self) -> list[str | bytes | Gap] | None:
        """The next messages, the first one at the end. The caller takes that one now."""
        if self._leftover:
            return self._leftover.popleft()
        items: list[Any] | None = self.traffic.take() if self.traffic else None
        if items:
            self._received += len(items)
        return items

    def session(self) -> SessionTraffic | None:
        return self.traffic if isinstance(self.traffic, SessionTraffic) else None

    def position(self) -> tuple[int, tuple[int, int]]:
        traffic = self.session()
        if traffic is None:
            return self._number, (0, 0)
        incoming = traffic.core.incoming
        return self._number, incoming.current.position() if incoming.current else incoming.taken

    def acknowledge(self, position: tuple[int, tuple[int, int]] | None) -> None:
        traffic = self.session()
        if traffic is not None and (position is None or position[0] == self._number):
            traffic.acknowledge(position and position[1])

    def take_undelivered(self) -> list[Returned]:
        returned, self._returned, self._returned_bytes = list(self._returned), deque(), 0
        return returned

    def stats(self, unread: int) -> Stats:
        traffic = self.traffic
        outgoing = traffic.core.outgoing if isinstance(traffic, SessionTraffic) else None
        plain = traffic.unsent() if isinstance(traffic, PlainTraffic) else 0
        return Stats(
            messages_sent=self._sent,
            messages_received=self._received - unread,
            connections=self._connections,
            resumes=self.board.resumes,
            unsent_bytes=outgoing.unsent() if outgoing else plain,
            unacknowledged_bytes=outgoing.kept() if outgoing else plain,
            unread_bytes=traffic.unread() if traffic else 0,
            round_trip=self.board.round_trip,
        )

    # ---- The end ----

    def begin_close(self, code: int, reason: str, within: float) -> None:
        if self.is_ended or self._closing:
            return
        self._closing = True
        late = SessionLost("close timed out", "the close was not completed by its deadline")
        self._deadline = self.loop.call_later(within + LINGER, self.kill, late)
        traffic = self.traffic
        if traffic is None or traffic.is_over:
            self._stop.set_result(None)
            return
        reader = self.reader
        traffic.is_abandoned = reader is None or reader.done() or reader is asyncio.current_task()
        traffic.close(code, reason, within)

    async def wait_ended(self) -> None:
        """Waits until it has ended. If it is cancelled, it ends at once."""
        assert self._task is not None
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self.kill(SessionLost("aborted", "its application was cancelled while it closed"))
            raise

    def abort(self, why: Error) -> None:
        self._closing = True
        if self.traffic is None:
            self.kill(why)
        else:
            self.traffic.give_up(why)

    def kill(self, why: Error) -> None:
        """Ends now. Nothing is waited for."""
        self._closing = True
        if self.traffic is not None and not self.traffic.is_over:
            self.traffic.give_up(why)
        if self._link is not None:
            self._link.transport.close()
        if self._task is not None:
            self._task.cancel()
        self._finish(why)

    def _finish(self, why: Error | None) -> None:
        if self.is_ended:
            return
        if self.traffic is not None:
            self._conclude(self.traffic)
        self.is_ended, self.why = True, why
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._first.done():
            self._first.set_result(ConnectError("connecting was stopped", retryable=True))
        self.board.events.push(Ended(why))
        self.board.fire_all()

    def _conclude(self, traffic: Traffic) -> None:
        """The traffic has ended. What it has for the application goes to the application."""
        self.traffic = None
        traffic.stop()
        if not self._closing or not traffic.is_abandoned:
            while items := traffic.take():
                self._received += len(items)
                self._leftover.append(list(items))
                if isinstance(traffic, SessionTraffic):
                    traffic.core.incoming.current = None
            self._bound_leftover()
        undelivered = traffic.undelivered()
        self._returned.extend(undelivered)
        self._returned_bytes += sum(len(back.message) + OVERHEAD for back in undelivered)
        dropped = 0
        while self._returned_bytes > self.options.replay + self.options.outbox + self.options.max_message:
            self._returned_bytes -= len(self._returned.popleft().message) + OVERHEAD
            dropped += 1
        if dropped:
            self.board.events.push(UndeliveredDropped(dropped))
        if isinstance(traffic, SessionTraffic) and isinstance(traffic.why, SessionLost):
            self.board.events.push(SessionEnded(traffic.why, len(undelivered)))

    def _bound_leftover(self) -> None:
        """Bounds what lost sessions leave. The peer gets back what is dropped: it was never acknowledged,
        and the gap stands behind it."""
        held = 0
        kept: deque[list[str | bytes | Gap]] = deque()
        for items in self._leftover:
            held += sum(OVERHEAD if isinstance(item, Gap) else len(item) + OVERHEAD for item in items)
            if held <= 2 * self.options.window + self.options.max_message or isinstance(items[0], Gap):
                kept.append(items)
            else:
                self._received -= len(items)
        self._leftover = kept

    # ---- The task ----

    async def _run(self) -> None:
        why: Error | None = SessionLost("aborted", "its task was cancelled")
        try:
            why = await self._keep_connected()
        except ConnectError as error:
            why = self._give_up(error)
        except Exception:
            logger.exception("an internal error ends the session")
            why = SessionLost("aborted", "an internal error, which was logged")
        finally:
            self._finish(why)

    def _give_up(self, error: ConnectError) -> Error:
        """Connecting failed for good."""
        if not self._first.done():
            self._first.set_result(error)
        why: Error = error
        traffic = self.session()
        if traffic is not None:
            why = SessionLost("gave up", f"connecting again failed: {error}")
            why.__cause__ = error
            traffic.give_up(why)
        return why

    async def _keep_connected(self) -> Error | None:
        """Connects again and again. Returns why it has ended."""
        traffic: Traffic | None = None
        lost: ConnectionLost | None = None
        lost_at = self.loop.time()
        while True:
            ends = [self._stop] if traffic is None else [self._stop, traffic.over]
            link = await self._dialer.connect(not self._connections, *ends)
            if link is not None:
                traffic = self._traffic_for(link, traffic)
                if lost is not None and isinstance(traffic, PlainTraffic):
                    self._mark(Gap(lost, self.loop.time() - lost_at))
                lost = await self._converse(traffic, link)
                lost_at = self.loop.time()
            if traffic is None or (self._stop.done() and self.traffic is None):
                return None
            if traffic.is_over and (isinstance(traffic, PlainTraffic) or traffic.opened):
                if not self._will_follow(traffic):
                    return traffic.why
                self._conclude(traffic)
                why = traffic.why or ConnectionLost("the server goes away")
                self._mark(
                    Gap(why if isinstance(why, SessionLost | ConnectionLost) else ConnectionLost(str(why)))
                )
                traffic, lost = None, None
            elif isinstance(traffic, PlainTraffic):
                end = self._end_of_plain(traffic, lost)
                if end is not False:
                    return end
            elif not traffic.opened:
                traffic = self._not_opened(traffic, lost)
            elif self.options.reconnect is None:
                why = SessionLost("gave up", f"its connection was lost, and reconnect is None: {lost}")
                traffic.give_up(why)
                return why

    def _end_of_plain(
        self, traffic: PlainTraffic, lost: ConnectionLost | None
    ) -> Error | Literal[False] | None:
        """Why a plain connection has ended for good. False: it is made again."""
        if not self._first.done():
            raise ConnectError(f"the first connection was lost at once: {lost}", retryable=True) from lost
        if self._closing or (lost is not None and lost.code == 1000):
            traffic.give_up(None)
            return None
        if self.options.reconnect is None:
            traffic.give_up(lost)
            return lost
        return False

    def _not_opened(self, traffic: SessionTraffic, lost: ConnectionLost | None) -> SessionTraffic | None:
        """The connection ended before the session was opened. Raises `ConnectError` if no attempt may
        follow."""
        self._refused += 1
        self._dialer.asked = traffic.full
        if traffic.is_not_spoken or (lost is not None and lost.code in MISUNDERSTOOD):
            if self.options.require_session:
                why = "the server agreed to a session (unstall.v1) but does not speak it"
                raise ConnectError(f"{why}; check what answers there", retryable=False)
            self.board.events.push(SessionNotSpoken())
            self._dialer.plain_once = True
            traffic.stop()
            return None
        why = str(traffic.why or lost or "the connection was lost before the session was opened")
        error = ConnectError(why, retryable=True, retry_after=traffic.full)
        if not self._first.done() or not self._dialer.may_retry(self._refused):
            raise error
        if traffic.is_over:
            traffic.stop()
            return None
        return traffic

    def _will_follow(self, traffic: Traffic) -> bool:
        """Whether another session follows this one, which has ended or is closing."""
        options = self.options
        if options.reconnect is None or not options.fresh_sessions or self._closing:
            return False
        if isinstance(traffic, PlainTraffic):
            return False
        core = traffic.core
        if traffic.is_over:
            return traffic.given_up is None and is_followed(core)
        return core.peer_close is not None and core.peer_close["code"] in PASSING

    def _mark(self, gap: Gap) -> None:
        """A gap stands in the stream behind what has arrived."""
        if isinstance(self.traffic, PlainTraffic):
            self.traffic.mark(gap)
            return
        last = self._leftover[-1] if self._leftover else None
        if last is None or not isinstance(last[0], Gap):
            self._leftover.append([gap])
        self.board.readable.fire()

    # ---- One connection ----

    def _traffic_for(self, link: Link, traffic: Traffic | None) -> Traffic:
        """The same traffic, if it can go on over this connection, or another one."""
        if link.subprotocol == SUBPROTOCOL:
            if isinstance(traffic, SessionTraffic):
                return traffic
            if isinstance(traffic, PlainTraffic):
                self._conclude(traffic)
            return SessionTraffic(self.board)
        if self.options.require_session:
            link.transport.abort()
            why = "the server offers no session (unstall.v1), and require_session is set"
            raise ConnectError(f"{why}: check the URL, or connect without it", retryable=False)
        if isinstance(traffic, PlainTraffic):
            return traffic
        if traffic is not None:
            traffic.give_up(SessionLost("not offered", "the server no longer offers sessions"))
            if traffic.opened:
                self._conclude(traffic)
                self._mark(Gap(SessionLost("not offered", "the server no longer offers sessions")))
        return PlainTraffic(self.board)

    async def _converse(self, traffic: Traffic, link: Link) -> ConnectionLost:
        """One connection, to its end."""
        self._connections += 1
        self._link = link
        started, moved = self.loop.time(), progress(traffic)
        watch = asyncio.ensure_future(link.watch(self.options.ping_interval, self.options.silence_timeout))
        try:
            traffic.attach(link)
            self.board.events.push(Connected(self._connections))
            await self._begin(traffic, link)
            why = await watch
        finally:
            watch.cancel()
            link.transport.abort()
            self._link = None
            traffic.detach()
        self.board.events.push(Disconnected(why))
        lasted = self.loop.time() - started
        self._dialer.backoff.lived(lasted, link.frames > 0, progress(traffic) != moved)
        return why

    async def _begin(self, traffic: Traffic, link: Link) -> None:
        """Until the traffic is open and the function `on_connect` has returned."""
        if isinstance(traffic, SessionTraffic):
            if traffic.opened and self.traffic is traffic:
                return
            await first_of(traffic.opening, traffic.over, link.lost, self._stop)
            if not traffic.opened:
                if self._stop.done():
                    link.drop(ConnectionLost("this side closes"))
                return
        hook = self.options.on_connect
        if hook is not None and not await self._set_up(hook(Setup(traffic, link)), traffic, link):
            return
        if self.traffic is None:
            self.traffic, self._number = traffic, self._number + 1
        self.is_session, self._refused = traffic.is_session, 0
        if isinstance(traffic, PlainTraffic):
            traffic.ready()
        if not self._first.done():
            self._first.set_result(None)
        self.board.fire_all()

    async def _set_up(self, hook: Awaitable[None], traffic: Traffic, link: Link) -> bool:
        task = asyncio.ensure_future(hook)
        try:
            await first_of(task, link.lost, timeout=SETUP_TIMEOUT)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        error = None if task.cancelled() else task.exception()
        if not task.cancelled() and error is None:
            return True
        why = f"the function on_connect failed: {error!r}" if error else "on_connect took too long"
        if isinstance(traffic, SessionTraffic):
            traffic.opened = False
            traffic.give_up(SessionLost("aborted", why))
        link.drop(ConnectionLost(why))
        return False

    def _leave(self, within: float) -> None:
        """GOAWAY: connects anew at a random moment within this time."""
        link = self._link
        if link is not None:
            why = ConnectionLost("the server asked its clients to connect again")
            self.loop.call_later(random.random() * within, leave, link, why)


def leave(link: Link, why: ConnectionLost) -> None:
    if not link.lost.done():
        link.write_close(1001)
        link.drop(why)


def progress(traffic: Traffic) -> object:
    return traffic.moved() if isinstance(traffic, SessionTraffic) else None
