"""What a subscription delivers, and places in a log: SPEC-TOPICS.md, sections 1, 7 and 9."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import NamedTuple

#: Offsets and the times of messages are below this.
OFFSETS = 1 << 62
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Position(NamedTuple):
    """A place behind a message of a log. It holds at every node that serves the log, over restarts.

    ``str(position)`` is its text form, ``LOG:OFFSET:TIME``. It is short enough for a cookie, a URL
    fragment or a row of a database. :meth:`parse` is the reverse.
    """

    #: The id of the log, 16 bytes.
    log: bytes
    #: The message behind which the position stands. 0: before the first message.
    offset: int
    #: When that message was stored, in milliseconds since 1970. 0: not known. A log that has lost its
    #: end gives offsets out again; the time tells such messages apart.
    time: int

    def __str__(self) -> str:
        return f"{self.log.hex()}:{self.offset}:{self.time}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position of a text form.

        Raises :class:`ValueError` for every other text.
        """
        parts = text.split(":")
        if len(parts) != 3 or len(parts[0]) != 32 or not text.isascii():
            raise ValueError(NO_POSITION)
        if not parts[0].isalnum() or not parts[1].isdigit() or not parts[2].isdigit():
            raise ValueError(NO_POSITION)
        try:
            log, offset, time = bytes.fromhex(parts[0]), int(parts[1]), int(parts[2])
        except ValueError:
            raise ValueError(NO_POSITION) from None
        if offset >= OFFSETS or time >= OFFSETS:
            raise ValueError(NO_POSITION)
        return cls(log, offset, time)


NO_POSITION = "this is not a position; it has the form LOG:OFFSET:TIME, with 32 hexadecimal digits for LOG"


class Message(NamedTuple):
    """A message of a log."""

    #: The topic under which it was published.
    topic: str
    #: What was published: ``str`` for text, ``bytes`` for binary.
    data: str | bytes
    #: Its place in the log.
    offset: int
    #: When it was stored, in milliseconds since 1970, by the clock of whoever stored it.
    time: int
    #: It is the last message of its topic.
    final: bool
    #: The id of the log.
    log: bytes

    @property
    def position(self) -> Position:
        """The place of the message. Save it to go on behind this message, in another process too."""
        return Position(self.log, self.offset, self.time)

    @property
    def stored_at(self) -> datetime:
        """When it was stored, as a time in UTC."""
        return EPOCH + timedelta(milliseconds=self.time)


class Gap(NamedTuple):
    """Messages are or may be missing here: those above ``after`` and up to ``through``."""

    #: ``removed``: retention removed them before they were read. ``another log``: the address serves
    #: another log. ``diverged``: the log lost its end. ``moved ahead``: the largest lag asked for it.
    #: ``too large``: a message is larger than this client accepts. ``damaged``: the store cannot read
    #: them.
    reason: str
    #: Messages of the filter are missing for sure. If not, there may have been none.
    certain: bool
    after: int
    through: int
    #: Where the subscription stands behind the gap.
    position: Position


class CaughtUp(NamedTuple):
    """Everything up to this position is delivered. It was the end of the log when the subscription
    began. It comes too if the filter matched nothing."""

    position: Position


class Ended(NamedTuple):
    """The subscription is over."""

    reason: str
    text: str


class Batch(NamedTuple):
    """Messages that follow each other, and what they cost together."""

    messages: list[Message]
    cost: int


#: What the core of a subscription hands over.
Item = Batch | Gap | CaughtUp | Ended
