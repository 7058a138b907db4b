"""What happens to the connection of a client of topics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Connected:
    """A node has accepted the client."""

    #: The address, without user information and query.
    url: str
    #: The node's name, in its own words. Characters that act on a terminal are escaped.
    node: str
    #: The id of the log that it serves.
    log: bytes


@dataclass(frozen=True)
class Disconnected:
    """A connection was lost, or none was made."""

    #: Why, in words.
    why: str
    #: In how many seconds the client tries again. None: it has ended.
    again_in: float | None


@dataclass(frozen=True)
class TokenFailed:
    """The function that gives tokens failed while a new token was to replace one that expires. The
    client asks again. If no token comes in time, it connects anew."""

    why: str


Event = Connected | Disconnected | TokenFailed


@dataclass(frozen=True)
class TopicsStats:
    """How a client stands."""

    #: The id of the log of the node that the client is connected to. None while there is no connection.
    log: bytes | None
    #: The name of that node, escaped.
    node: str | None
    #: Connections that a node has accepted.
    connections: int
    #: Subscriptions that are alive.
    subscriptions: int
    #: Published messages without an answer.
    unanswered: int
    #: What they cost, in bytes: payload, topic, and 64 for each.
    unanswered_bytes: int
    #: Messages that a node has confirmed as stored, refused, and such whose fate is not known.
    stored: int
    refused: int
    unknown: int


@dataclass(frozen=True)
class SubscriptionStats:
    """How a subscription stands."""

    #: Messages that the application has received.
    messages: int
    #: What has arrived and waits for the application, in bytes: payload, topic, and 64 for each message.
    waiting_bytes: int
    #: What has arrived of a message that is not whole, in bytes.
    partial_bytes: int
    #: What the node may still send, in bytes. At 0 it waits for the application.
    credit_bytes: int
    #: How many offsets the application is behind the end of the log, as far as the client knows it.
    #: Messages of other topics count as well. None before the first connection.
    lag: int | None
