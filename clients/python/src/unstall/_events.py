"""What a program is told in addition to messages: gaps, events, statistics."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from ._errors import ConnectError, ConnectionLost, SessionLost
from ._signal import Signal

logger = logging.getLogger("unstall")

#: How many events are kept for a slow listener. Older ones are counted as missed.
EVENT_BACKLOG = 256


@dataclass(frozen=True)
class Gap:
    """Here messages may be missing from the received stream. Nothing goes missing without one.

    After a plain connection was lost and made again, `why` is a `ConnectionLost`: what the peer sent in
    between is missing. After a session was lost, it is a `SessionLost`: what the peer's application sent
    and this one did not receive is missing, and the peer's application gets it back.
    """

    why: ConnectionLost | SessionLost
    #: The time without a connection, in seconds.
    away: float = 0.0


@dataclass(frozen=True)
class Connected:
    """A WebSocket connection opened. The generation counts them from 1."""

    generation: int


@dataclass(frozen=True)
class Disconnected:
    """The connection was lost."""

    why: ConnectionLost


@dataclass(frozen=True)
class SessionOpened:
    """The peer accepted the session. From now on it outlives its connections."""


@dataclass(frozen=True)
class SessionNotSpoken:
    """The server agreed to `unstall.v1` and does not speak it. The next connection is plain."""


@dataclass(frozen=True)
class Resumed:
    """The session goes on over a new connection."""

    #: The time without a connection, in seconds.
    after: float
    #: The number of records that are sent again.
    replayed: int


@dataclass(frozen=True)
class SessionEnded:
    """The session was lost. So many messages come back from `take_undelivered`."""

    why: SessionLost
    undelivered: int


@dataclass(frozen=True)
class UndeliveredDropped:
    """The application did not collect the undelivered messages of earlier sessions. There is no room for
    more, so the oldest were dropped. See `take_undelivered`."""

    messages: int


@dataclass(frozen=True)
class GoAway:
    """The server is shutting down. This client connects again at a random moment within this time."""

    #: Seconds from now.
    within: float
    reason: str = ""


@dataclass(frozen=True)
class AttemptFailed:
    """An attempt to connect failed. The number counts from 1 since the loss."""

    attempt: int
    why: ConnectError


@dataclass(frozen=True)
class Reconnecting:
    """The next attempt starts after this wait, in seconds."""

    attempt: int
    after: float


@dataclass(frozen=True)
class PeerClosing:
    """The peer closes, with this code and reason."""

    code: int
    reason: str


@dataclass(frozen=True)
class Ended:
    """It has ended for good. None after a normal close."""

    why: Exception | None


@dataclass(frozen=True)
class Missed:
    """So many events were dropped, because the listener was too slow."""

    events: int


Event = (
    Connected
    | Disconnected
    | SessionOpened
    | SessionNotSpoken
    | Resumed
    | SessionEnded
    | UndeliveredDropped
    | GoAway
    | AttemptFailed
    | Reconnecting
    | PeerClosing
    | Ended
    | Missed
)


@dataclass(frozen=True)
class Stats:
    """Counts since `connect`, and what is held now. Bytes count 64 more for each record of a session."""

    messages_sent: int
    messages_received: int
    #: Connections made, and sessions resumed.
    connections: int
    resumes: int
    #: What waits for the connection; what is kept until the peer acknowledges it, the former included;
    #: what has arrived and was not received by the application.
    unsent_bytes: int
    unacknowledged_bytes: int
    unread_bytes: int
    #: The time of the last PING to the other session and back, in seconds.
    round_trip: float | None


class EventLog:
    """The latest events. Writing never waits for a listener."""

    def __init__(self, callback: Callable[[Event], None] | None) -> None:
        self._callback = callback
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._ended = False
        self._news = Signal()

    def push(self, event: Event) -> None:
        if self._ended:
            return
        self._ended = isinstance(event, Ended)
        if len(self._events) == EVENT_BACKLOG:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)
        self._news.fire()
        if self._callback is not None:
            try:
                self._callback(event)
            except Exception:
                logger.exception("the function on_event failed; the connection goes on")

    async def listen(self) -> AsyncIterator[Event]:
        """From the oldest event that is kept up to `Ended`."""
        at = 0
        while True:
            if at < self._dropped:
                missed, at = self._dropped - at, self._dropped
                yield Missed(missed)
            elif at - self._dropped < len(self._events):
                event = self._events[at - self._dropped]
                at += 1
                yield event
            elif self._ended:
                return
            else:
                await self._news.wait()
