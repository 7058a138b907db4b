"""What can be set, with the limits and their reasons. All times are seconds, all sizes are bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from ._backoff import Reconnect
from ._events import Event

#: The smallest window and the smallest largest message that peers agree to (SPEC.md, section 18).
MIN_WINDOW = 262_144
MIN_MESSAGE = 65_536
MAX_MESSAGE = 1_073_741_824
#: What a record or a message costs in addition to its payload.
OVERHEAD = 64
#: A session's first window: 100 Mbit/s with a round trip of 80 ms.
FIRST_WINDOW = 1 << 20
#: How long the `on_connect` function may take: enough for a backfill, and one that hangs is noticed.
SETUP_TIMEOUT = 60.0


class Setup(Protocol):
    """The new connection, as the `on_connect` function uses it."""

    @property
    def is_session(self) -> bool:
        """Whether it is a session."""

    def send(self, message: str | bytes) -> None:
        """Sends before all queued messages."""


@dataclass(frozen=True)
class Options:
    """The settings of a client, checked."""

    require_session: bool = False
    plain: bool = False
    acknowledge_by_hand: bool = False
    fresh_sessions: bool = True
    reconnect: Reconnect | None = field(default_factory=Reconnect)
    on_connect: Callable[[Setup], Awaitable[None]] | None = None
    on_event: Callable[[Event], None] | None = None
    #: Feeds stay far below it, and one hostile message cannot cost more.
    max_message: int = 16 << 20
    #: What waits for the connection: little, so that messages are not old when they leave.
    outbox: int = 256 << 10
    #: Received messages of a plain connection that wait for the application.
    inbox: int = 4 << 20
    #: Sent messages that a session keeps until they are acknowledged: two of the largest.
    replay: int = 32 << 20
    #: The largest receive window of a session: 1 Gbit/s with a round trip of 60 ms.
    window: int = 8 << 20
    #: How long a session lives without a connection: it covers a deployment, a tunnel, a laptop that is
    #: carried to another room.
    session_life: float = 120.0
    #: Common proxies cut connections that are idle for 60 s.
    ping_interval: float | None = 10.0
    #: By then three pings were not answered.
    silence_timeout: float = 30.0
    close_timeout: float = 5.0

    def __post_init__(self) -> None:
        if self.require_session and self.plain:
            raise ValueError("require_session and plain exclude each other: leave one out")
        within(self.max_message, MIN_MESSAGE, MAX_MESSAGE, "max_message")
        within(self.window, MIN_WINDOW, 1 << 40, "window")
        least = self.max_message + OVERHEAD * (self.max_message // MIN_MESSAGE + 1) + (128 << 10)
        within(self.replay, least, 1 << 40, "replay")
        within(self.outbox, 1, 1 << 40, "outbox")
        within(self.inbox, 1, 1 << 40, "inbox")
        for name in ("session_life", "silence_timeout", "close_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds")

    def core(self) -> dict[str, int | bool]:
        """The options of the protocol core."""
        return {
            "window": min(FIRST_WINDOW, self.window),
            "largest_window": self.window,
            "largest_message": self.max_message,
            "replay": self.replay,
            "expiry": int(self.session_life * 1000),
            "acknowledge_by_hand": self.acknowledge_by_hand,
        }


def within(value: int, least: int, most: int, name: str) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}: it must be from {least} to {most} bytes")
