"""The errors that programs meet. Each says what failed, why, and what to do; none has a secret in it."""

from __future__ import annotations

from dataclasses import dataclass

from ._text import printable


class Error(Exception):
    """The base of all errors of this package."""


class ConnectError(Error):
    """No WebSocket connection could be opened.

    `retryable` says whether a later attempt may succeed. `status` is the HTTP status of the server's
    refusal, and `retry_after` the wait in seconds that it asks for, if there is one. The cause is in
    `__cause__`.
    """

    def __init__(
        self,
        why: str,
        *,
        retryable: bool,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(why)
        self.retryable = retryable
        self.status = status
        self.retry_after = retry_after


class ConnectionLost(Error):
    """A connection was lost. Programs see it as the reason of events and gaps; a client with
    `reconnect=None` raises it.

    `code` and `reason` are those of the peer's close frame, if it sent one.
    """

    def __init__(self, why: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(why)
        self.code = code
        self.reason = reason


class SessionLost(Error):
    """A session ended without being finished, and cannot be resumed.

    `cause` is one of: ``expired``, ``unknown`` (the server restarted), ``not yours``, ``superseded``,
    ``full``, ``inconsistent``, ``close timed out``, ``aborted by peer``, ``aborted``, ``protocol`` (the
    peer broke the protocol), ``not offered`` (the server no longer offers sessions), ``gave up``
    (connecting again failed for good).
    """

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(f"the session was lost: {why}")
        self.cause = cause


class Closed(Error):
    """The session has ended, or is closing, and takes no more messages. A message that was given to
    `send` when this is raised was not accepted."""


class MessageTooLarge(Error, ValueError):
    """The message is larger than the peer accepts, or than `max_message`. It was not accepted.
    `size` and `limit` are in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is larger than the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class NotASession(Error):
    """This needs a session, and the server gave a plain connection. `unstall.connect(...,
    require_session=True)` fails at once in this case."""


class Undelivered(Error):
    """The connection or session has ended, and messages that were accepted may not be delivered.
    `messages` are they, in the order in which they were sent. Each says whether the peer may have it."""

    def __init__(self, why: str, messages: list[Returned]) -> None:
        count = len(messages)
        super().__init__(f"{why}; {count} accepted message{'s'[: count != 1]} came back")
        self.messages = messages


@dataclass(frozen=True)
class Returned:
    """A message that was accepted and that the peer did not acknowledge."""

    message: str | bytes
    #: True if it was given to a connection: the peer may have it. False if it was never sent.
    maybe_delivered: bool


def said(words: str) -> str:
    """What a peer said, for the end of an error: printable and short, with a colon before it."""
    words = printable(words)
    return f": {words}" if words else ""
