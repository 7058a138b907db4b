"""What lies between the application and a connection: `SessionTraffic` in a session, `PlainTraffic` in
`_plain`. Everything here is called in the event loop and returns at once, so no cancelled task can leave it
half done."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from ._core.packet import Refused
from ._core.session import CLOSE_TIMEOUT, REJECTIONS, Session
from ._errors import Closed, ConnectionLost, Error, MessageTooLarge, Returned, SessionLost, said
from ._events import EventLog, GoAway, PeerClosing, Resumed, SessionOpened
from ._link import Link
from ._options import Options
from ._signal import Signal

#: Close codes after which the peer may be connected to again: it went away, was lost, failed, restarts, or
#: has no room (RFC 6455, section 7.4).
PASSING = (1001, 1005, 1006, 1011, 1012, 1013, 1014)


class Board:
    """What the application waits for, and where it is told what happened."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.events = EventLog(options.on_event)
        #: There is something to receive; room to send; something was acknowledged; the state has changed.
        self.readable, self.room, self.progress, self.changed = Signal(), Signal(), Signal(), Signal()
        self.round_trip: float | None = None
        self.resumes = 0
        #: GOAWAY asks to connect anew within this time.
        self.leave: Callable[[float], None] = lambda _: None

    def fire_all(self) -> None:
        for signal in (self.readable, self.room, self.progress, self.changed):
            signal.fire()


class SessionTraffic:
    """A session of unstall.v1 over any number of connections."""

    is_session = True

    def __init__(self, board: Board) -> None:
        self.board, self.options = board, board.options
        self.loop = asyncio.get_running_loop()
        self.core = Session(True, self.options.core(), secrets.token_bytes(16), secrets.token_bytes(16))
        self.link: Link | None = None
        #: Why it ended, if it has: None is a normal close.
        self.is_over = False
        self.why: Error | None = None
        self.opened = False
        #: Done when it is opened.
        self.opening: asyncio.Future[None] = self.loop.create_future()
        #: The peer broke the protocol, or closed for want of understanding, before the session was opened.
        self.is_not_spoken = False
        #: The server has no room now: how long it asks to wait, in seconds.
        self.full: float | None = None
        #: The application receives no more: what is not taken need not be waited for.
        self.is_abandoned = False
        #: It was closed and all own messages are delivered. Only messages that nobody wants were left.
        self.is_left = False
        self.given_up: Error | None = None
        self.closed_here = False
        self.lost_at = 0.0
        #: Done when it is over.
        self.over: asyncio.Future[None] = self.loop.create_future()
        self._pump_due = False
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        return self.loop.time() * 1000

    # ---- The application ----

    def accept(self, is_text: bool, payload: bytes) -> bool:
        """Whether the message was accepted. False: there is no room, wait for `room`."""
        core = self.core
        if core.outgoing.unsent() >= self.options.outbox:
            return False
        answer = core.send(is_text, payload)
        if isinstance(answer, int):
            if not self._pump_due:
                self._pump_soon()
            return True
        if answer == "too large":
            raise MessageTooLarge(len(payload), core.largest())
        if answer == "closed":
            raise Closed("the session has ended or is closing: the message was not accepted")
        return False

    def take(self) -> list[str | bytes] | None:
        """The next messages, the first one at the end. The caller takes that one now."""
        batch = self.core.next_batch(self.now())
        self._pump_soon()
        return batch.messages if batch else None

    def untaken(self) -> bool:
        incoming = self.core.incoming
        return bool(incoming.batches) or bool(incoming.current and incoming.current.messages)

    def unread(self) -> int:
        incoming = self.core.incoming
        taken = incoming.current.position() if incoming.current else incoming.taken
        return incoming.received[1] - taken[1]

    def acknowledge(self, position: tuple[int, int] | None) -> None:
        self.core.settle(self.now())
        self.core.acknowledge(self.now(), position)
        self._after()

    def close(self, code: int, reason: str, within: float) -> None:
        if self.core.state == "open":
            self.closed_here = True
        self.core.close(self.now(), code, reason, within * 1000)
        self._after()

    def give_up(self, why: Error) -> None:
        """Ends the session at once. The peer is told, if there is a connection."""
        if not self.core.is_over():
            self.given_up = why
            self.core.abort(str(why))
        self._after()

    def undelivered(self) -> list[Returned]:
        return [
            Returned(payload.decode() if text else payload, sent)
            for text, payload, sent in self.core.outgoing.undelivered()
        ]

    # ---- Connections ----

    def attach(self, link: Link) -> None:
        self.link = link
        self.core.attach(self.now())
        link.limit(65_600)
        link.listen(self._on_message, self._pump)
        self._pump()

    def detach(self) -> None:
        """The connection is lost."""
        if self.link is not None:
            self.link.deafen()
            self.link, self.lost_at = None, self.loop.time()
        self.core.detach(self.now())
        self._after()

    def moved(self) -> tuple[int, int]:
        """Grows when messages move."""
        return self.core.incoming.received[0], self.core.outgoing.acked

    def stop(self) -> None:
        """Nothing happens any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- Packets ----

    def _on_message(self, data: str | bytes) -> None:
        try:
            self.core.handle(self.now(), data if isinstance(data, bytes) else None)
        except Refused as refused:
            self._refused(refused)
        self._after()

    def _refused(self, refused: Refused) -> None:
        """A rejection, or the peer broke the protocol."""
        link, core = self.link, self.core
        if refused.code in REJECTIONS or refused.code.isdigit():
            if refused.code == "full":
                self.full = core.retry_after / 1000
            code, why = 1000, f"the server refused the session: {refused.code}"
        else:
            self.is_not_spoken = not self.opened
            core.fail(self.now(), refused)
            code, why = 1002, f"the peer broke the session's protocol: {refused}"
        self._pump()
        if link is not None:
            link.write_close(code)
            link.drop(ConnectionLost(why))

    def _pump_soon(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            self.loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Sends what there is to be sent, as far as the connection takes it."""
        self._pump_due = False
        link, core = self.link, self.core
        if link is not None:
            now = self.now()
            while link.is_open and not link.is_full and (packet := core.transmit(now)) is not None:
                link.write(packet)
        if core.events or (core.is_over() and not self.is_over):
            self._tell()
        if core.outgoing.unsent() < self.options.outbox:
            self.board.room.fire()
        self._arm()

    def _after(self) -> None:
        """Something has happened to the session."""
        self._tell()
        self._pump_soon()
        if self.core.incoming.batches or self.is_over:
            self.board.readable.fire()
        if self.is_abandoned:
            self._end_if_abandoned()

    def _end_if_abandoned(self) -> None:
        """Nobody receives any more, and all own messages are delivered: there is nothing to wait for."""
        core = self.core
        if core.state == "closing" and core.outgoing.acked == core.outgoing.last and self.untaken():
            core.incoming.ack_now = core.incoming.owes_ack()
            self._pump()
            self.is_left = True
            core.abort("its application closed before it received every message")
            self._tell()
            self._pump_soon()

    def _arm(self) -> None:
        at = self.core.next_timeout()
        if self._timer is not None:
            if at is not None and at / 1000 >= self._timer.when():
                return
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = self.loop.call_at(at / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        # The loop's clock may be a little early.
        self.core.handle_timeout(self.now() + 1)
        self._after()

    # ---- What happened ----

    def _tell(self) -> None:
        core, board = self.core, self.board
        events, core.events = core.events, []
        for event in events:
            self._tell_one(event)
        if core.is_over() and not self.is_over:
            self.is_over = True
            self.why = None if self.is_left else self.given_up or ended(core, self.closed_here)
            if not self.over.done():
                self.over.set_result(None)
            if self.link is not None:
                self.link.write_close(1000)
                self.link.drop(ConnectionLost("the session has ended"))
            board.fire_all()
        board.progress.fire()

    def _tell_one(self, event: Any) -> None:
        board = self.board
        if event == "opened":
            self.opened = True
            self.opening.set_result(None)
            board.events.push(SessionOpened())
            board.changed.fire()
        elif event == "writable":
            board.room.fire()
        elif "resumed" in event:
            board.resumes += 1
            board.events.push(Resumed(self.loop.time() - self.lost_at, event["replayed"]))
        elif "closing" in event:
            board.events.push(PeerClosing(event["closing"], event["reason"]))
            board.fire_all()
        elif "go_away_within" in event:
            within = event["go_away_within"] / 1000
            board.events.push(GoAway(within, event["reason"]))
            board.leave(within)
        elif "pong_after" in event:
            board.round_trip = event["pong_after"] / 1000
        elif "handshake_timed_out" in event and self.link is not None:
            self.link.abort(ConnectionLost("the server agreed to a session but did not answer HELLO"))
        elif "ended" in event:
            board.changed.fire()


def ended(core: Session, closed_here: bool) -> Error | None:
    """The error of a session that is over. None after a normal close."""
    reason: Any = core.reason
    if reason is None:
        return SessionLost("aborted", "it ended")
    if isinstance(reason, str):
        whys = {
            "expired": "it was without a connection for too long",
            "close timed out": "the close was not completed by its deadline",
        }
        return SessionLost(reason, whys[reason])
    if "closed" in reason:
        code, words = reason["closed"], reason["reason"]
        if closed_here or code in (1000, 1001):
            return None
        what = f"the peer closed the session with code {code}{said(words)}"
        return ConnectionLost(what, code=code, reason=words)
    if "rejected" in reason:
        return SessionLost(str(reason["rejected"]), rejections(str(reason["rejected"])))
    if "aborted_by_peer" in reason:
        return SessionLost("aborted by peer", f"the peer aborted it{said(core.words)}")
    if "protocol" in reason:
        return SessionLost("protocol", f"the peer broke the protocol ({reason['protocol']})")
    return SessionLost("aborted", "this side aborted it")


def rejections(name: str) -> str:
    return {
        "expired": "it was without a connection for too long, or the server ended it",
        "unknown": "the server was restarted and does not know it",
        "not yours": "it belongs to another client",
        "superseded": "it is in use by a newer connection",
        "inconsistent": "the server's state of it does not fit this side's",
    }.get(name, f"the server refused it (reason {name})")


def is_followed(core: Session) -> bool:
    """Whether another session may follow one that is over. Not after a normal close, and not if one side
    broke the protocol: it would do so again."""
    reason: Any = core.reason
    if isinstance(reason, dict):
        if "closed" in reason:
            return reason["closed"] in PASSING
        if "aborted_by_peer" in reason:
            return int(reason["aborted_by_peer"]) >= CLOSE_TIMEOUT
        return "protocol" not in reason and "aborted" not in reason
    return True
