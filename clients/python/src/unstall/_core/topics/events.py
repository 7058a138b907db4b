"""What a client of topics tells its caller."""

from __future__ import annotations

from typing import NamedTuple


class Welcomed(NamedTuple):
    """A node has accepted the client."""

    log: bytes
    first: int
    last: int
    largest_message: int
    durability: int
    name: str


class Rejected(NamedTuple):
    """A node rejects the client."""

    reason: str
    #: In milliseconds; 0 if it does not say.
    retry_after: int
    text: str


class Stored(NamedTuple):
    """Messages with consecutive numbers are safe, the first one at this offset. Offset 0: they were
    stored before, and where is no longer known."""

    first: int
    amount: int
    offset: int
    durability: int


class Refusal(NamedTuple):
    """A message was refused."""

    number: int
    reason: str
    text: str
    #: It may be stored all the same.
    may_be_stored: bool


class Unknown(NamedTuple):
    """Messages with consecutive numbers were sent, and will not be sent again: nobody knows whether
    they are stored."""

    first: int
    amount: int


class GoAway(NamedTuple):
    """The node asks the client to connect elsewhere within this time (milliseconds)."""

    window: int
    text: str


class Pong(NamedTuple):
    """PING was answered after this time, in the caller's unit."""

    after: float


class Aborted(NamedTuple):
    """The node gave the connection up."""

    code: int
    text: str


Event = Welcomed | Rejected | Stored | Refusal | Unknown | GoAway | Pong | Aborted
