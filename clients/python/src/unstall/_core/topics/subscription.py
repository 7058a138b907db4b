"""One subscription of a client, over all connections: SPEC-TOPICS.md, sections 7 to 9."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from ..packet import Refused, malformed
from .delivered import Batch, CaughtUp, Ended, Gap, Item, Message, Position
from .names import NameCache
from .packet import ENDINGS, GAPS, MIN_CREDIT
from .records import Record, cost, read_record, read_wholes

RESETS = ("another log", "diverged")
#: Messages of small packets are joined up to this cost. Their credit comes back together.
JOIN_BELOW = 16_384
#: In larger packets the quick way would have to check the length of each record.
QUICK_PACKET = 65_536
#: Where the records begin in a MESSAGES packet.
RECORDS_AT = 5

Packet = dict[str, Any]


class Answer(NamedTuple):
    """What SUBSCRIBED has said."""

    begins: Position
    end: Position


class Subscription:
    """A cursor, a credit, and what the application has not taken.

    ``state`` is ``off`` (not asked for on this connection), ``asked``, ``subscribed``,
    ``unsubscribing`` or ``over``.
    """

    def __init__(
        self, number: int, pattern: bytes, start: Packet, largest_lag: int, window: int, largest_message: int
    ) -> None:
        self.number, self.filter, self.start = number, pattern, start
        self.largest_lag, self.window = largest_lag, window
        self.largest_message = largest_message
        self.names = NameCache(pattern)
        #: Everything up to here has come, or is in a gap. None before the first SUBSCRIBED.
        self.position: Position | None = None
        #: The end that the log had when its snapshot was made. None before the first SUBSCRIBED.
        self.snapshot_end: Position | None = None
        if start["name"] == "latest" and any(start["log"]):
            self.position = Position(start["log"], start["offset"], 0)
            self.snapshot_end = Position(start["log"], start["end"], start["time"])
        elif start["name"] == "after" and any(start["log"]):
            self.position = Position(start["log"], start["offset"], start["time"])
        self.is_caught_up = self.is_final = False
        self.state = "off"
        #: The connection on which it was asked for last.
        self.attachment = 0
        self.items: deque[Item] = deque()
        #: The cost of what is in `items`, or taken from there and not reported.
        self.held = 0
        self.in_line = self.is_forgotten = False
        self.reset()

    @property
    def is_over(self) -> bool:
        return self.state == "over"

    def reset(self) -> None:
        """A connection begins or ends. A message that is not whole comes again."""
        was, self.state = self.state, "off"
        self.granted = self.received = 0
        self.parts: list[Record] = []
        self.part_bytes = self.incomplete = 0
        self.end: int | None = None
        #: The GAP that has to come next, if SUBSCRIBED begins elsewhere than the position.
        self.owes_gap: str | None = None
        #: Where that GAP leads, and the end of the log, until the next packet has told whether one comes.
        self.answer: Answer | None = None
        if was != "off" and (self.is_final or was == "unsubscribing"):
            # Section 12: whether ENDED arrived or not.
            self.finish("final" if self.is_final else "unsubscribed", "")

    def finish(self, reason: str, text: str) -> None:
        self.state = "over"
        self.parts, self.part_bytes, self.incomplete = [], 0, 0
        self.items.append(Ended(reason, text))

    def leave(self) -> bool:
        """The application wants no more. Whether UNSUBSCRIBE is to be sent."""
        self.items.clear()
        self.held = 0
        self.parts, self.part_bytes, self.incomplete = [], 0, 0
        if self.state in ("asked", "subscribed"):
            self.state = "unsubscribing"
            return True
        if self.state == "off":
            self.finish("unsubscribed", "")
        return False

    def is_latest(self) -> bool:
        return self.start["name"] == "latest" and not self.is_caught_up

    def next_start(self) -> Packet:
        if self.position is None:
            return self.start
        log, offset, time = self.position
        if self.is_latest() and self.snapshot_end:
            _, end, end_time = self.snapshot_end
            return {"name": "latest", "log": log, "end": end, "time": end_time, "offset": offset}
        return {"name": "after", "log": log, "offset": offset, "time": time}

    def next_item(self) -> Item | None:
        """What the application receives next. A batch counts until :meth:`taken` is told its cost."""
        return self.items.popleft() if self.items else None

    def taken(self, size: int) -> None:
        self.held = max(0, self.held - size)

    # Credit: section 8.

    def target(self) -> int:
        """The most that may be granted: what is taken, what is there of a message that is not whole,
        and the window. What is held of earlier connections takes from it."""
        return self.received + self.window - self.held

    def wants_packet(self) -> bool:
        if self.state == "off":
            return self.target() >= MIN_CREDIT
        is_open = self.state in ("asked", "subscribed")
        return is_open and self.target() - self.granted >= self.window // 2

    def next_packet(self) -> Packet | None:
        if not self.wants_packet():
            return None
        was, self.granted = self.state, self.target()
        if was != "off":
            return {"kind": "CREDIT", "subscription": self.number, "credit": self.granted}
        self.state = "asked"
        return {
            "kind": "SUBSCRIBE",
            "subscription": self.number,
            "credit": self.granted,
            "largest_lag": self.largest_lag,
            "start": self.next_start(),
            "filter": self.filter,
        }

    # Packets.

    def handle(self, packet: Packet, log: bytes) -> None:
        kind = packet["kind"]
        if kind == "ENDED":
            return self.finish(ENDINGS[packet["reason"]], packet["text"])
        if self.state == "unsubscribing":
            return None
        if (kind == "SUBSCRIBED") != (self.state == "asked"):
            raise Refused("UNEXPECTED", f"{kind} of a subscription that is {self.state}")
        if kind == "SUBSCRIBED":
            return self.handle_subscribed(packet, log)
        if self.parts:
            raise Refused("UNEXPECTED", f"{kind} within a message")
        if kind == "GAP":
            return self.handle_gap(packet)
        return self.handle_caught_up(packet)

    def handle_subscribed(self, packet: Packet, log: bytes) -> None:
        after, time, end = packet["after"], packet["time"], packet["end"]
        if after > end:
            raise Refused("INCONSISTENT", "a place behind the end")
        if self.is_latest() and (after, time) != (0, 0):
            raise Refused("INCONSISTENT", "a snapshot that begins behind a message")
        self.state, self.end = "subscribed", end
        answer = Answer(Position(log, after, time), Position(log, end, packet["end_time"]))
        if self.position is None:
            self.position, self.snapshot_end = answer
            return
        if self.position.log != log:
            self.owes_gap = "another log"
        elif self.is_latest() and self.snapshot_end:
            # The snapshot goes on. It is diverged if the log ends before the end that it had.
            self.owes_gap = "diverged" if self.snapshot_end.offset > end else None
        elif self.position.offset != after:
            self.owes_gap = "diverged"
        self.answer = answer

    def place(self) -> Position:
        """The position, if something else than a GAP may come now."""
        if self.state != "subscribed" or self.position is None:
            raise Refused("UNEXPECTED", f"a packet of a subscription that is {self.state}")
        if self.owes_gap:
            raise Refused("INCONSISTENT", f"no GAP {self.owes_gap}")
        self.settle()
        return self.position

    def settle(self) -> None:
        """The packet behind SUBSCRIBED has come. A snapshot goes on up to the end that it named."""
        if self.answer:
            self.snapshot_end, self.answer = self.answer.end, None

    def handle_messages(self, data: bytes) -> None:
        """A MESSAGES packet. Of one that is not valid nothing is delivered."""
        place, kept = self.place(), self.held
        messages: list[Message] = []
        try:
            self.read(data, place, messages)
        except Refused:
            self.held = kept
            raise
        if messages:
            last = messages[-1]
            self.position = Position(place.log, last.offset, last.time)
            self.is_final = last.final and self.names.is_topic
            self.keep_messages(messages, self.held - kept)

    def read(self, data: bytes, place: Position, into: list[Message]) -> None:
        log, offset, _ = place
        at, end = RECORDS_AT, len(data)
        if at >= end:
            raise malformed("no records")
        while at < end:
            if not self.parts and end <= QUICK_PACKET:
                at, offset, size = read_wholes(data, at, log, offset, self.names, into)
                self.spend(size)
                self.held += size
                if at >= end:
                    break
            record, at = read_record(data, at, True, self.parts[-1] if self.parts else None)
            message = self.handle_record(record, log, offset)
            if message is not None:
                into.append(message)
                offset = message.offset

    def spend(self, size: int) -> None:
        self.received += size
        if self.received > self.granted:
            raise Refused("CREDIT_EXCEEDED", f"{self.received} of {self.granted}")

    def handle_record(self, record: Record, log: bytes, place: int) -> Message | None:
        """A record by itself. Gives the message that it completes."""
        if not self.parts:
            if record.offset is None or record.offset <= place:
                raise Refused("INCONSISTENT", f"offset {record.offset} again")
            self.names.learn(record.topic or b"")
        self.spend(cost(record))
        self.incomplete += cost(record)
        self.parts.append(record)
        self.part_bytes += len(record.payload)
        if self.part_bytes > self.largest_message:
            raise Refused("MESSAGE_TOO_LARGE", str(self.part_bytes))
        if record.continues:
            return None
        first = self.parts[0]
        payload: bytes | str = b"".join(part.payload for part in self.parts)
        if record.text and isinstance(payload, bytes):
            try:
                payload = payload.decode()
            except UnicodeDecodeError:
                raise Refused("INVALID_TEXT", "not UTF-8") from None
        self.held += self.incomplete
        self.parts, self.part_bytes, self.incomplete = [], 0, 0
        return Message(
            self.names.learn(first.topic or b""),
            payload,
            first.offset or 0,
            first.time or 0,
            first.final,
            log,
        )

    def keep_messages(self, messages: list[Message], size: int) -> None:
        last = self.items[-1] if self.items else None
        if isinstance(last, Batch) and last.cost + size <= JOIN_BELOW:
            last.messages.extend(messages)
            self.items[-1] = Batch(last.messages, last.cost + size)
        else:
            self.items.append(Batch(messages, size))

    def handle_gap(self, packet: Packet) -> None:
        reason, after, through = GAPS[packet["reason"]], packet["after"], packet["through"]
        answer, place = self.answer, self.position
        if place is None or (self.owes_gap and reason != self.owes_gap):
            raise Refused("INCONSISTENT", f"no GAP {self.owes_gap}")
        if reason in RESETS:
            # A diverged log can begin at the same place: its message there is another one.
            if answer is None or not (self.owes_gap or reason == "diverged"):
                raise Refused("INCONSISTENT", f"{reason}, but the place fits")
            if (after, through) != (place.offset, answer.begins.offset):
                raise Refused("INCONSISTENT", "a GAP between other places")
            self.position, self.owes_gap = answer.begins, None
        elif not place.offset <= after <= through:
            raise Refused("INCONSISTENT", f"{after} to {through} after {place.offset}")
        else:
            self.position = Position(place.log, through, place.time if through == place.offset else 0)
        self.settle()
        self.keep_gap(Gap(reason, bool(packet["certain"]), after, through, self.position))

    def marks(self) -> range:
        """Where the items stand that are behind the last message."""
        begin = len(self.items)
        while begin > 0 and not isinstance(self.items[begin - 1], Batch):
            begin -= 1
        return range(begin, len(self.items))

    def keep_gap(self, gap: Gap) -> None:
        """Section 8: between two messages one GAP for each reason is kept, where the first one came.
        Marks behind it hold up to where the GAP goes now."""
        found = False
        for at in self.marks():
            known = self.items[at]
            if isinstance(known, CaughtUp) and found:
                self.items[at] = CaughtUp(gap.position)
            elif isinstance(known, Gap) and found:
                self.items[at] = known._replace(position=gap.position)
            elif isinstance(known, Gap) and known.reason == gap.reason:
                found = True
                self.items[at] = known._replace(
                    through=gap.through, position=gap.position, certain=gap.certain or known.certain
                )
        if not found:
            self.items.append(gap)

    def handle_caught_up(self, packet: Packet) -> None:
        """Of those between two messages the last one is kept."""
        place, offset = self.place(), packet["offset"]
        if offset < place.offset or offset < (self.end or 0):
            raise Refused("INCONSISTENT", f"caught up with {offset} after {place.offset}")
        same = offset == place.offset and packet["time"] == 0
        self.position = Position(place.log, offset, place.time if same else packet["time"])
        self.is_caught_up = True
        for at in self.marks():
            if isinstance(self.items[at], CaughtUp):
                del self.items[at]
                break
        self.items.append(CaughtUp(self.position))
