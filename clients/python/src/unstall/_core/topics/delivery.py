"""One subscription on a server: a cursor in a log, and a credit (SPEC-TOPICS.md, sections 7 to 9)."""

from __future__ import annotations

from typing import Any

from .log import Log, Opening, Stored
from .names import is_topic
from .packet import ENDINGS, GAPS, number_of, pack, split
from .records import Record, cost

Packet = dict[str, Any]

#: After so many offsets that the filter leaves out, CAUGHT_UP tells the place again.
PROGRESS = 4_096
#: The cost of the smallest record.
SMALLEST = 65


class Delivery:
    """It reads the log only while it has credit, and keeps nothing but its place."""

    def __init__(self, packet: Packet) -> None:
        self.number, self.credit = packet["subscription"], packet["credit"]
        self.filter, self.start = packet["filter"], packet["start"]
        self.largest_lag = packet["largest_lag"]
        #: The costs that were sent, and the cost of the next record, if it did not fit.
        self.spent = self.needs = 0
        #: "asked", "opened", "snapshot", "history", "live", "ending", "over".
        self.stage = "asked"
        self.opening: Opening | None = None
        self.gap: Packet | None = None
        self.ending: Packet | None = None
        #: Everything up to here is sent, left out, or in a GAP.
        self.place = 0
        #: The place and time that CAUGHT_UP is to tell; later what the client knows.
        self.target = (0, 0)
        #: The message of which some records are sent: its offset, and how many.
        self.begun: tuple[int, int] | None = None

    # The caller.

    def accept(self, log: Log) -> None:
        if self.stage == "asked":
            self.stage, self.opening = "opened", log.open(self.start, self.filter)

    def finish(self, reason: str, text: str = "") -> None:
        if self.stage not in ("ending", "over"):
            self.stage, self.ending = "ending", {"reason": number_of(ENDINGS, reason), "text": text}
            self.gap = None

    def has_credit(self) -> bool:
        return bool(self.credit - self.spent >= max(self.needs, SMALLEST))

    # What is sent.

    def next_packet(self, log: Log, now: float, largest_message: int) -> Packet | None:
        packet = self.next_fields(log, now, largest_message)
        return packet and {"kind": packet[0], "subscription": self.number} | packet[1]

    def next_fields(self, log: Log, now: float, largest_message: int) -> tuple[str, Packet] | None:
        if self.stage in ("asked", "over"):
            return None
        if self.stage == "opened":
            return self.begin()
        records: list[tuple[Stored, Record]] = []
        if self.stage != "ending" and not self.gap:
            records = self.look(log, now, largest_message)
        if self.gap:
            gap, self.gap = self.gap, None
            self.tell(gap["through"])
            return "GAP", gap
        if self.stage == "ending":
            self.stage = "over"
            return "ENDED", self.ending or {}
        return self.caught_up(log) or self.messages(records)

    def begin(self) -> tuple[str, Packet]:
        opening, self.opening = self.opening, None
        assert opening is not None
        self.place, self.target = opening.after, (opening.end, opening.end_time)
        self.stage = "history"
        if opening.snapshot is not None:
            self.stage, self.place = "snapshot", opening.snapshot
        if opening.reason:
            self.place = opening.named
            self.leave_out(opening.reason, 0, opening.after)
        return "SUBSCRIBED", {
            "after": opening.after,
            "time": opening.time,
            "end": opening.end,
            "end_time": opening.end_time,
        }

    def tell(self, place: int) -> None:
        """The client knows this place now."""
        if self.stage == "live":
            self.target = (place, 0)

    def leave_out(self, reason: str, certain: int, through: int) -> None:
        """GAPs of one reason that follow each other are one."""
        after = self.gap["after"] if self.gap else self.place
        self.gap = {"reason": number_of(GAPS, reason), "certain": certain, "after": after, "through": through}
        self.place = through

    def look(self, log: Log, now: float, largest_message: int) -> list[tuple[Stored, Record]]:
        """Moves the place past what is not sent, up to the next message that is. Gives its records,
        and those of messages behind it."""
        is_snapshot = self.stage == "snapshot"
        bound = self.target[0] if is_snapshot else log.last
        if self.place >= bound or not self.has_credit():
            return []
        if not is_snapshot and log.first - 1 > self.place and not self.begun:
            self.leave_out("removed", 0, log.first - 1)
            return []
        find = log.latest if is_snapshot else log.matching
        found = find(self.filter, self.place, bound)
        if self.begun and self.begun[0] not in [m.offset for m in found]:
            # Within a message nothing but ENDED may come.
            self.finish("unavailable", "the message is no longer in the log")
            return []
        begin, end = log.damaged
        if begin < end and self.place < end:
            found = [m for m in found if m.offset <= begin]
            if not found:
                self.place = max(self.place, begin)
                self.leave_out("damaged", 0, end)
                return []
        return self.choose(found, bound, log.last, now, largest_message)

    def choose(
        self, found: list[Stored], bound: int, last: int, now: float, largest_message: int
    ) -> list[tuple[Stored, Record]]:
        """Of messages that match, those that are sent now."""
        records: list[tuple[Stored, Record]] = []
        for message in found:
            if self.stage == "history" and message.offset > self.target[0]:
                # CAUGHT_UP comes first.
                self.place = self.place if records else max(self.place, self.target[0])
                return records
            if len(message.payload) > largest_message:
                if records:
                    return records
                self.leave_out("too large", 1, message.offset)
                if self.is_end(message):
                    gap = self.gap
                    self.finish("final")
                    self.gap = gap
                    return []
                continue
            if self.gap:
                return []
            lag = now - message.time if message.time and self.largest_lag else 0
            if not records and self.stage != "snapshot" and lag > self.largest_lag:
                self.leave_out("moved ahead", 1, last)
                return []
            records += self.records_of(message)
            if self.is_end(message):
                return records
        if not records and not self.gap:
            self.place = bound
        return records

    def is_end(self, message: Stored) -> bool:
        return message.final and is_topic(self.filter)

    def records_of(self, message: Stored) -> list[tuple[Stored, Record]]:
        records = [
            (message, record)
            for record in split(
                message.text,
                message.final,
                message.payload,
                topic=message.topic,
                offset=message.offset,
                time=message.time,
            )
        ]
        sent = self.begun[1] if self.begun and self.begun[0] == message.offset else 0
        return records[sent:]

    def caught_up(self, log: Log) -> tuple[str, Packet] | None:
        is_due = self.stage in ("snapshot", "history") and self.place >= self.target[0]
        if self.begun:
            return None
        if not is_due and not (self.stage == "live" and self.place >= self.target[0] + PROGRESS):
            return None
        if self.place != self.target[0]:
            self.target = (self.place, log.last_time if self.place == log.last else 0)
        self.stage = "live"
        return "CAUGHT_UP", {"offset": self.target[0], "time": self.target[1]}

    def messages(self, records: list[tuple[Stored, Record]]) -> tuple[str, Packet] | None:
        spent = self.spent

        def fits(record: Record) -> bool:
            nonlocal spent
            spent += cost(record)
            return bool(spent <= self.credit)

        count = pack([record for _, record in records], 5, fits)
        if records:
            self.needs = 0 if count else cost(records[0][1])
        for message, record in records[:count]:
            self.spent += cost(record)
            if record.continues:
                sent = self.begun[1] if self.begun else 0
                self.begun = (message.offset, sent + 1)
            else:
                self.place, self.begun = message.offset, None
                if self.is_end(message):
                    self.finish("final")
        if not count:
            return None
        self.tell(self.place)
        return "MESSAGES", {"records": [record for _, record in records[:count]]}
