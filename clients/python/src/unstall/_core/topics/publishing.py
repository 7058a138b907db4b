"""What a client publishes, until it is answered: SPEC-TOPICS.md, section 10."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ..packet import MAX_RECORD, MIN_LARGEST_MESSAGE, RECORD_OVERHEAD, Refused
from .events import Event, Refusal, Stored, Unknown
from .packet import FILL, KINDS, MIN_PUBLISH_WINDOW, REFUSALS
from .records import record_head

PUBLISH = bytes((KINDS["PUBLISH"],))
#: The cost of an empty message without a topic.
VOID_COST = RECORD_OVERHEAD


def message_cost(topic: bytes, length: int) -> int:
    """The cost of a message: its payload, its topic, and 64 for each of its records."""
    records = max(1, -(-length // MAX_RECORD))
    return length + len(topic) + records * RECORD_OVERHEAD


class Open:
    """A message without an answer."""

    __slots__ = ("again", "cost", "final", "payload", "since", "text", "topic", "void")

    def __init__(self, topic: bytes, text: bool, final: bool, payload: bytes) -> None:
        self.topic, self.text, self.final, self.payload = topic, text, final, payload
        self.cost = message_cost(topic, len(payload))
        #: When it was first sent to its end.
        self.since: float | None = None
        #: It was sent to its end on an earlier connection.
        self.again = False
        #: It can no longer be sent, but its number has to be. An empty message without a topic goes
        #: in its place, which every server refuses.
        self.void = False

    def make_void(self) -> int:
        """Gives what it costs less from now on."""
        if self.void:
            return 0
        before, self.void, self.cost = self.cost, True, VOID_COST
        self.topic = self.payload = b""
        return before - VOID_COST


class Publisher:
    """Numbers messages, sends them within the window, and knows what became of them."""

    def __init__(self, has_id: bool) -> None:
        self.has_id = has_id
        #: The number of the oldest message without an answer.
        self.first = 1
        #: Messages sent to their end on this connection, and the others.
        self.sent: deque[Open] = deque()
        self.waiting: deque[Open] = deque()
        #: The cost of all of them.
        self.held = 0
        self.window, self.once = MIN_PUBLISH_WINDOW, 0
        self.largest_message = MIN_LARGEST_MESSAGE
        self.begin()

    def begin(self) -> None:
        #: This connection has sent PUBLISH.
        self.has_begun = False
        #: How much of the payload of the first message in `waiting` was sent.
        self.piece: int | None = None
        #: The cost of what is on the way.
        self.on_way = 0
        #: No message begins before this one is answered, because the token has changed since.
        self.barrier = 0

    def count(self) -> int:
        return len(self.sent) + len(self.waiting)

    def add(self, topic: bytes, text: bool, final: bool, payload: bytes) -> int:
        """Takes a message. Gives its number."""
        message = Open(topic, text, final, payload)
        self.held += message.cost
        self.waiting.append(message)
        return self.first + self.count() - 1

    # Connections.

    def welcome(self, window: int, largest_message: int, once: int) -> None:
        self.window, self.largest_message, self.once = window, largest_message, once
        for message in self.waiting:
            if len(message.payload) > largest_message:
                self.held -= message.make_void()

    def reset(self) -> list[Event]:
        """A connection begins or ends. Messages without an id that were sent are lost: nobody knows
        their fate."""
        lost: list[Event] = []
        if self.sent and not self.has_id:
            lost = [Unknown(self.first, len(self.sent))]
            self.answered(len(self.sent))
        for message in self.sent:
            message.again = True
        self.sent.extend(self.waiting)
        self.sent, self.waiting = deque(), self.sent
        self.begin()
        return lost

    def late(self, message: Open, now: float) -> bool:
        return bool(self.once) and message.since is not None and now - message.since >= self.once

    def expire(self, now: float) -> list[Event]:
        """Gives up messages that wait and must not be sent again. A connection that has sent PUBLISH
        cannot leave a number out."""
        if not self.once:
            return []
        if self.has_begun:
            for at, message in enumerate(self.waiting):
                if not message.void and not self.late(message, now):
                    break
                if at or self.piece is None:
                    self.held -= message.make_void()
            return []
        count = 0
        while count < len(self.waiting) and self.late(self.waiting[count], now):
            count += 1
        if not count:
            return []
        first = self.first
        for _ in range(count):
            self.held -= self.waiting.popleft().cost
        self.first += count
        return [Unknown(first, count)]

    def deadline(self) -> float | None:
        """When a message that waits to be sent again is given up."""
        if not self.once or not self.waiting:
            return None
        for message in self.waiting:
            if not message.void:
                return None if message.since is None else message.since + self.once
        return None

    # Sending.

    def fits(self, message: Open) -> bool:
        if self.first <= self.barrier:
            return False
        return not self.on_way or self.on_way + message.cost <= self.window

    def wants_packet(self) -> bool:
        return bool(self.waiting) and (self.piece is not None or self.fits(self.waiting[0]))

    def next_packet(self, now: float) -> bytes | None:
        if not self.wants_packet():
            return None
        self.has_begun = True
        waiting, sent, window = self.waiting, self.sent, self.window
        parts = [PUBLISH + (self.first + len(sent)).to_bytes(8, "big")]
        size = len(parts[0])
        may_begin = self.first > self.barrier
        while waiting:
            message = waiting[0]
            payload, begun = message.payload, self.piece
            if begun is None:
                on_way = self.on_way
                if not may_begin or (on_way and on_way + message.cost > window):
                    break
            length = len(payload)
            continues = length - (begun or 0) > MAX_RECORD
            if continues or begun:
                payload = payload[begun or 0 : (begun or 0) + MAX_RECORD]
            topic = message.topic if begun is None else None
            head = record_head(message.text, continues, message.final, len(payload), topic)
            size += len(head) + len(payload)
            if size > FILL and len(parts) > 1:
                break
            parts.append(head)
            parts.append(payload)
            if begun is None:
                self.on_way += message.cost
            if continues:
                self.piece = (begun or 0) + MAX_RECORD
                continue
            self.piece = None
            if message.since is None and not message.void:
                message.since = now
            sent.append(waiting.popleft())
        return b"".join(parts)

    def change_token(self) -> None:
        """Another token may allow what is refused now: no message begins before those that were
        sent are answered."""
        self.barrier = self.first + len(self.sent) + (self.piece is not None) - 1

    # Answers.

    def answered(self, count: int) -> None:
        sent, total = self.sent, 0
        for _ in range(count):
            total += sent.popleft().cost
        self.held -= total
        self.on_way -= total
        self.first += count

    def check(self, number: int, count: int) -> None:
        """Answers are to the oldest messages, and to such as were sent to their end."""
        if number != self.first or count > len(self.sent):
            raise Refused("INCONSISTENT", f"answers to {count} from {number} on")

    def handle_published(self, packet: dict[str, Any]) -> Iterable[Event]:
        runs = packet["runs"]
        self.check(packet["first"], sum(count for count, _ in runs))
        for count, offset in runs:
            first = self.first
            self.answered(count)
            yield Stored(first, count, offset, packet["durability"])

    def handle_refused(self, packet: dict[str, Any]) -> Event:
        number, reason = packet["number"], REFUSALS[packet["reason"]]
        self.check(number, 1)
        message = self.sent[0]
        self.answered(1)
        if message.void and message.since is not None:
            return Unknown(number, 1)
        if message.void:
            return Refusal(number, "too large", packet["text"], False)
        # What an earlier connection brought may be stored.
        may_be_stored = reason == "unknown" or (message.again and reason != "invalid topic")
        return Refusal(number, reason, packet["text"], may_be_stored)

    def give_up(self) -> Iterator[tuple[int, bool]]:
        """All messages, and whether each may be stored. None is left."""
        first = self.first
        given = [message.since is not None for message in (*self.sent, *self.waiting)]
        self.first += len(given)
        self.sent.clear()
        self.waiting.clear()
        self.held = 0
        self.begin()
        return iter(list(enumerate(given, first)))
