"""A log as SPEC-TOPICS.md sees it, small and in memory: where each start begins (section 7), and which
publications it stores (section 10)."""

from collections import namedtuple

from .names import matches

#: A stored message.
Stored = namedtuple("Stored", "offset time topic text final payload")

#: Where a subscription begins: the place, its time, the end of the log and its time; the reason of
#: the GAP that comes first and the offset that the client named; and behind which offset the
#: snapshot of the latest messages begins, if it is one.
Opening = namedtuple("Opening", "after time end end_time reason named snapshot")


class Log:
    def __init__(self, log_id, first, last, last_time, messages):
        self.id, self.first, self.last, self.last_time = log_id, first, last, last_time
        self.messages = messages
        #: Messages behind the first offset and up to the second cannot be read.
        self.damaged = (0, 0)

    def append(self, message):
        self.messages.append(message)
        self.last, self.last_time = message.offset, message.time

    def remove(self, through):
        self.messages = [m for m in self.messages if m.offset > through]
        self.first = self.messages[0].offset if self.messages else self.last + 1

    def time_of(self, offset):
        """The time of the message there, or 0 if it is not known."""
        if offset == self.last:
            return self.last_time
        return next((m.time for m in self.messages if m.offset == offset), 0)

    def matching(self, pattern, after, through):
        return [m for m in self.messages
                if after < m.offset <= through and matches(pattern, m.topic)]

    def latest(self, pattern, after, through):
        """The latest message of each topic up to an offset, of those behind another."""
        latest = {m.topic: m for m in self.matching(pattern, 0, through)}
        return sorted((m for m in latest.values() if m.offset > after), key=lambda m: m.offset)

    def open(self, start, pattern):
        """A place has a time if the position names it, or if it is the end."""
        name, reason, snapshot = start["name"], None, None
        named = start.get("offset", 0)
        if name == "latest":
            is_new = not any(start["log"])
            reason = None if is_new else self.reset_of(start["log"], named, 0)
            place, snapshot = 0, 0 if is_new or reason else named
        elif name == "after":
            reason = self.reset_of(start["log"], named, start["time"])
            place = {"another log": self.first - 1, "diverged": self.last}.get(reason, named)
        else:
            place = self.begin(start, pattern)
        time = start.get("time", 0) if name == "after" and not reason else 0
        if name == "now" or reason == "diverged" and name == "after":
            time = self.last_time
        return Opening(place, time, self.last, self.last_time, reason, named, snapshot)

    def begin(self, start, pattern):
        """The place of a start that names no position."""
        if start["name"] == "now":
            return self.last
        if start["name"] == "since":
            later = [m.offset for m in self.messages if m.time >= start["time"]]
            return later[0] - 1 if later else self.last
        if start["name"] == "last":
            found = self.matching(pattern, 0, self.last)[-start["count"]:]
            if len(found) == start["count"]:
                return found[0].offset - 1
        return self.first - 1

    def reset_of(self, log, offset, time):
        """Why a position does not fit, if it does not."""
        if log != self.id:
            return "another log"
        known = self.time_of(offset)
        if offset > self.last or (time and known and time != known):
            return "diverged"
        return None


class Publishers:
    """What a log remembers of its publishers: "Once" in section 10."""

    def __init__(self, last):
        self.last = last
        #: The epoch, the highest number, and the offsets, of each publisher.
        self.known = {}

    def publish(self, publisher, epoch, number):
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
