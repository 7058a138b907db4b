"""A log as SPEC-TOPICS.md sees it, small and in memory: where each start begins (section 7), and which
publications it stores (section 10)."""

from __future__ import annotations

from typing import Any, NamedTuple

from .names import matches

Packet = dict[str, Any]


class Stored(NamedTuple):
    """A stored message."""

    offset: int
    time: int
    topic: bytes
    text: bool
    final: bool
    payload: bytes


class Opening(NamedTuple):
    """Where a subscription begins."""

    #: The place, its time, the end of the log and its time.
    after: int
    time: int
    end: int
    end_time: int
    #: The reason of the GAP that comes first, and the offset that the client named.
    reason: str | None
    named: int
    #: Behind which offset the snapshot of the latest messages begins, if it is one.
    snapshot: int | None


class Log:
    def __init__(self, log_id: bytes, first: int, last: int, last_time: int, messages: list[Stored]) -> None:
        self.id, self.first, self.last, self.last_time = log_id, first, last, last_time
        self.messages = messages
        #: Messages behind the first offset and up to the second cannot be read.
        self.damaged = (0, 0)

    def append(self, message: Stored) -> None:
        self.messages.append(message)
        self.last, self.last_time = message.offset, message.time

    def remove(self, through: int) -> None:
        self.messages = [m for m in self.messages if m.offset > through]
        self.first = self.messages[0].offset if self.messages else self.last + 1

    def time_of(self, offset: int) -> int:
        """The time of the message there, or 0 if it is not known."""
        if offset == self.last:
            return self.last_time
        return next((m.time for m in self.messages if m.offset == offset), 0)

    def matching(self, pattern: bytes, after: int, through: int) -> list[Stored]:
        return [m for m in self.messages if after < m.offset <= through and matches(pattern, m.topic)]

    def latest(self, pattern: bytes, after: int, through: int) -> list[Stored]:
        """The latest message of each topic up to an offset, of those behind another."""
        latest = {m.topic: m for m in self.matching(pattern, 0, through)}
        return sorted((m for m in latest.values() if m.offset > after), key=lambda m: m.offset)

    def open(self, start: Packet, pattern: bytes) -> Opening:
        """A place has a time if the position names it, or if it is the end."""
        name: str = start["name"]
        reason: str | None = None
        snapshot: int | None = None
        place: int
        named: int = start.get("offset", 0)
        if name == "latest":
            is_new = not any(start["log"])
            if not is_new:
                reason = self.reset_of(start["log"], start["end"], start["time"])
                reason = reason or ("diverged" if named > self.last else None)
            place = 0
            snapshot = 0 if is_new or reason else named
        elif name == "after":
            reason = self.reset_of(start["log"], named, start["time"])
            places = {"another log": self.first - 1, "diverged": self.last}
            place = places.get(reason or "", named)
        else:
            place = self.begin(start, pattern)
        time = start.get("time", 0) if name == "after" and not reason else 0
        if name == "now" or (reason == "diverged" and name == "after"):
            time = self.last_time
        return Opening(place, time, self.last, self.last_time, reason, named, snapshot)

    def begin(self, start: Packet, pattern: bytes) -> int:
        """The place of a start that names no position."""
        if start["name"] == "now":
            return self.last
        if start["name"] == "since":
            later = [m.offset for m in self.messages if m.time >= start["time"]]
            return later[0] - 1 if later else self.last
        if start["name"] == "last":
            found = self.matching(pattern, 0, self.last)[-start["count"] :]
            if len(found) == start["count"]:
                return found[0].offset - 1
        return self.first - 1

    def reset_of(self, log: bytes, offset: int, time: int) -> str | None:
        """Why a position does not fit, if it does not."""
        if log != self.id:
            return "another log"
        known = self.time_of(offset)
        if offset > self.last or (time and known and time != known):
            return "diverged"
        return None


class Publishers:
    """What a log remembers of its publishers: "Once" in section 10."""

    def __init__(self, last: int) -> None:
        self.last = last
        #: The epoch, the highest number, and the offsets, of each publisher.
        self.known: dict[bytes, tuple[int, int, dict[int, int]]] = {}

    def publish(self, publisher: bytes, epoch: int, number: int) -> dict[str, Any]:
        if not any(publisher):
            self.last += 1
            return {"stored": self.last}
        remembered, highest, offsets = self.known.get(publisher, (0, 0, {}))
        if epoch < remembered:
            return {"refused": "fenced"}
        if epoch > remembered:
            highest, offsets = 0, {}
        if number <= highest:
            return {"before": offsets.get(number, 0)}
        self.last += 1
        self.known[publisher] = epoch, number, offsets | {number: self.last}
        return {"stored": self.last}
