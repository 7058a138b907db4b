"""A log as SPEC-TOPICS.md sees it, small and in memory: what it answers to each start (section 7),
and which publications it stores (section 10)."""

from collections import namedtuple

from topics_packet import matches

#: A stored message; only the length of its payload matters here.
Stored = namedtuple("Stored", "offset time topic length final", defaults=[False])


class Log:
    def __init__(self, log_id, first, last, last_time, messages):
        self.id, self.first, self.last, self.last_time = log_id, first, last, last_time
        self.messages = messages

    def time_of(self, offset):
        """The time of the message there, or 0 if it is not known."""
        if offset == self.last:
            return self.last_time
        return next((m.time for m in self.messages if m.offset == offset), 0)

    def matching(self, pattern, after=0):
        return [m for m in self.messages if m.offset > after and matches(pattern, m.topic)]

    def place_of(self, start, pattern):
        """Where delivery begins, and the reason of the GAP before it, if there is one."""
        name = start["name"]
        if name == "now":
            return self.last, None
        if name == "since":
            later = [m.offset for m in self.messages if m.time >= start["time"]]
            return (later[0] - 1 if later else self.last), None
        if name == "last":
            found = self.matching(pattern)[-start["count"]:]
            enough = len(found) == start["count"]
            return (found[0].offset - 1 if enough else self.first - 1), None
        if name == "beginning":
            return self.first - 1, None
        log, offset, time = start["log"], start["offset"], start.get("time", 0)
        if name == "latest":
            if not any(log):
                return 0, None
            return 0, self.reset_of(log, offset, 0)
        reason = self.reset_of(log, offset, time)
        if reason == "another log":
            return self.first - 1, reason
        return (self.last if reason else offset), reason

    def reset_of(self, log, offset, time):
        if log != self.id:
            return "another log"
        known = self.time_of(offset)
        if offset > self.last or (time and known and time != known):
            return "diverged"
        return None

    def answers(self, start, pattern, largest_lag, largest_message, now):
        """Everything that is sent in a subscription, if the log does not change meanwhile."""
        place, reason = self.place_of(start, pattern)
        yield {"subscribed": place, "time": self.time_of(place), "end": self.last}
        if reason:
            yield gap(reason, 0, start["offset"], place)
        if start["name"] == "latest":
            # A snapshot that goes on leaves out what the client has.
            seen = 0 if reason or not any(start["log"]) else start["offset"]
            latest = {m.topic: m for m in self.matching(pattern)}
            due = sorted(m for m in latest.values() if m.offset > seen)
            largest_lag = 0
        else:
            if self.first > place + 1:
                yield gap("removed", 0, place, self.first - 1)
                place = self.first - 1
            due = self.matching(pattern, place)
        for message in due:
            if largest_lag and now - message.time > largest_lag:
                yield gap("moved ahead", 1, place, self.last)
                break
            if message.length > largest_message:
                yield gap("too large", 1, message.offset - 1, message.offset)
            else:
                yield {"message": message.offset}
            place = message.offset
            if message.final and message.topic == pattern:
                yield {"ended": "final"}
                return
        yield {"caught_up": self.last, "time": self.last_time}


def gap(reason, certain, after, through):
    return {"gap": reason, "certain": certain, "after": after, "through": through}


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
