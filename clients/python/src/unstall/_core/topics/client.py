"""The client of unstall.topics.v1, over any number of connections, written from SPEC-TOPICS.md alone.
It keeps the positions of its subscriptions and the messages without an answer. It is made to be read
and to check the vectors, not to be fast."""

from ..packet import MIN_LARGEST_MESSAGE, Refused
from .packet import (ENDINGS, GAPS, IGNORED, MIN_CREDIT, REFUSALS, REJECTIONS, cost, is_topic,
                           matches, pack, split)
from .server import Endpoint

RESETS = ("another log", "diverged")


class Subscription:
    """One subscription, over all connections: sections 7 to 9."""

    def __init__(self, number, pattern, start, largest_lag, window, largest_message):
        self.number, self.filter, self.start = number, pattern, start
        self.largest_lag, self.window = largest_lag, window
        self.largest_message = largest_message
        #: The log, the offset and the time; nothing before the first SUBSCRIBED.
        self.position = None
        if any(start.get("log", b"")):
            self.position = (start["log"], start["offset"], start.get("time", 0))
        self.is_caught_up = False
        #: What the application has not taken: the item, its cost, and whether the cost counts
        #: against the credit of this connection.
        self.items, self.left_over = [], 0
        self.is_over = self.is_final = False
        self.state = "off"
        self.reset()

    def reset(self):
        """A connection begins or ends. A message that is not whole is dropped."""
        if self.state != "off" and (self.is_final or self.state == "unsubscribing"):
            # Section 12: whether ENDED arrived or not.
            self.finish("final" if self.is_final else "unsubscribed")
        self.state = "off"
        self.granted = self.received = self.taken = 0
        self.parts, self.incomplete = [], 0
        self.end = None
        #: The GAP that has to come next, if SUBSCRIBED begins elsewhere than the position; where it
        #: leads; and whether one may come.
        self.owes_gap = self.new_place = None
        self.may_begin_anew = False
        self.left_over = sum(item[1] for item in self.items)
        self.items = [(item, size, False) for item, size, _ in self.items]

    def finish(self, reason):
        self.is_over = True
        self.items.append(({"ended": reason}, 0, True))

    def is_latest(self):
        return self.start["name"] == "latest" and not self.is_caught_up

    def next_start(self):
        if self.position is None:
            return self.start
        log, offset, time = self.position
        if self.is_latest():
            return {"name": "latest", "log": log, "offset": offset}
        return {"name": "after", "log": log, "offset": offset, "time": time}

    def take(self):
        for _, size, is_current in self.items:
            if is_current:
                self.taken += size
            else:
                self.left_over -= size
        items, self.items = self.items, []
        return [item for item, _, _ in items]

    # Credit: section 8.

    def target(self):
        return self.taken + self.incomplete + self.window - self.left_over

    def next_packet(self):
        if self.is_over:
            return None
        if self.state == "off" and self.target() >= MIN_CREDIT:
            self.state, self.granted = "asked", self.target()
            return {"kind": "SUBSCRIBE", "subscription": self.number, "credit": self.granted,
                    "largest_lag": self.largest_lag, "start": self.next_start(),
                    "filter": self.filter}
        is_due = self.target() - self.granted >= self.window // 2
        if self.state in ("asked", "subscribed") and is_due:
            self.granted = self.target()
            return {"kind": "CREDIT", "subscription": self.number, "credit": self.granted}
        return None

    # Packets.

    def handle(self, packet, log):
        kind = packet["kind"]
        if kind == "ENDED":
            return self.finish(ENDINGS[packet["reason"]])
        if self.state == "unsubscribing":
            return None
        if (kind == "SUBSCRIBED") != (self.state == "asked"):
            raise Refused("UNEXPECTED", f"{kind} of a subscription that is {self.state}")
        if kind == "SUBSCRIBED":
            return self.handle_subscribed(packet, log)
        if self.owes_gap and (kind != "GAP" or GAPS[packet["reason"]] != self.owes_gap):
            raise Refused("INCONSISTENT", f"no GAP {self.owes_gap}")
        if kind != "GAP":
            self.may_begin_anew = False
        if kind == "MESSAGES":
            for record in packet["records"]:
                self.handle_record(record)
        elif self.parts:
            raise Refused("UNEXPECTED", f"{kind} within a message")
        elif kind == "GAP":
            self.handle_gap(packet)
        else:
            self.handle_caught_up(packet)
        return None

    def handle_subscribed(self, packet, log):
        after = packet["after"]
        if after > packet["end"]:
            raise Refused("INCONSISTENT", "a place behind the end")
        self.state, self.end = "subscribed", packet["end"]
        if self.position is None:
            self.position = (log, after, packet["time"])
            return
        if self.position[0] != log:
            self.owes_gap = "another log"
        elif self.is_latest():
            # The snapshot goes on. It is diverged if the place is beyond the end.
            self.owes_gap = "diverged" if self.position[1] > self.end else None
        elif self.position[1] != after:
            self.owes_gap = "diverged"
        self.new_place, self.may_begin_anew = (log, after, packet["time"]), True

    def handle_record(self, record):
        if not self.parts and record.offset <= self.position[1]:
            raise Refused("INCONSISTENT", f"offset {record.offset} again")
        if not self.parts and not matches(self.filter, record.topic):
            raise Refused("INCONSISTENT", "a message of another topic")
        self.received += cost(record)
        if self.received > self.granted:
            raise Refused("CREDIT_EXCEEDED", f"{self.received} of {self.granted}")
        self.parts.append(record)
        self.incomplete += cost(record)
        payload = b"".join(part.payload for part in self.parts)
        if len(payload) > self.largest_message:
            raise Refused("MESSAGE_TOO_LARGE", str(len(payload)))
        if record.continues:
            return
        if record.text:
            try:
                payload.decode()
            except UnicodeDecodeError:
                raise Refused("INVALID_TEXT", "not UTF-8") from None
        first, size = self.parts[0], self.incomplete
        self.parts, self.incomplete = [], 0
        self.position = (self.position[0], first.offset, first.time)
        self.is_final = first.final and first.topic == self.filter
        self.items.append(({"offset": first.offset, "time": first.time, "topic": first.topic,
                            "is_text": first.text, "final": first.final, "payload": payload},
                           size, True))

    def handle_gap(self, packet):
        reason, after, through = GAPS[packet["reason"]], packet["after"], packet["through"]
        may_begin_anew, self.may_begin_anew = self.may_begin_anew, False
        if reason in RESETS:
            # A diverged log can begin at the same place: its message there is another one.
            if not self.owes_gap and not (may_begin_anew and reason == "diverged"):
                raise Refused("INCONSISTENT", f"{reason}, but the place fits")
            if after != self.position[1] or through != self.new_place[1]:
                raise Refused("INCONSISTENT", "a GAP between other places")
            self.position, self.owes_gap = self.new_place, None
        elif not self.position[1] <= after <= through:
            raise Refused("INCONSISTENT", f"{after} to {through} after {self.position[1]}")
        else:
            time = self.position[2] if through == self.position[1] else 0
            self.position = (self.position[0], through, time)
        self.keep_gap({"gap": reason, "certain": packet["certain"], "after": after,
                       "through": through})

    def since_message(self):
        """The items behind the last message that the application has not taken."""
        count = 0
        while count < len(self.items) and "offset" not in self.items[-1 - count][0]:
            count += 1
        return [item for item, _, _ in self.items[len(self.items) - count:]]

    def keep_gap(self, gap):
        """Section 8: between two messages one GAP for each reason is kept, where the first one came.
        A mark behind it holds up to where the GAP goes now."""
        found = False
        for known in self.since_message():
            if found and "caught_up" in known:
                known |= {"caught_up": self.position[1], "time": self.position[2]}
            elif known.get("gap") == gap["gap"]:
                known |= {"through": gap["through"], "certain": gap["certain"] | known["certain"]}
                found = True
        if not found:
            self.items.append((gap, 0, True))

    def keep_caught_up(self, mark):
        """And the last CAUGHT_UP."""
        for known in self.since_message():
            if "caught_up" in known:
                self.drop(known)
        self.items.append((mark, 0, True))

    def drop(self, known):
        self.items = [item for item in self.items if item[0] is not known]

    def handle_caught_up(self, packet):
        offset = packet["offset"]
        if offset < self.position[1] or offset < self.end:
            raise Refused("INCONSISTENT", f"caught up with {offset} after {self.position[1]}")
        self.position = (self.position[0], offset, packet["time"])
        self.is_caught_up = True
        self.keep_caught_up({"caught_up": offset, "time": packet["time"]})


class Publisher:
    """What the application publishes: section 10."""

    def __init__(self, has_id):
        self.has_id = has_id
        self.last = self.once = 0
        #: Messages without an answer, the oldest first.
        self.open = []
        self.reset()

    def reset(self):
        """A connection begins or ends. Gives the numbers of messages whose fate is unknown."""
        self.has_begun, self.barrier = False, 0
        lost = [] if self.has_id else [m["number"] for m in self.open if m.get("sent")]
        self.open = [m for m in self.open if m["number"] not in lost]
        for message in self.open:
            message["left"], message["sent"] = message["records"], False
            message["again"] = message["since"] is not None
        return lost

    def expire(self, now):
        """Gives the numbers of messages that wait and must not be sent again. A connection that has
        sent PUBLISH cannot leave a number out."""
        if self.has_begun:
            return []
        late = [m["number"] for m in self.open
                if self.once and m["since"] is not None and now - m["since"] > self.once]
        self.open = [m for m in self.open if m["number"] not in late]
        return late

    def add(self, topic, text, final, payload):
        self.last += 1
        records = split(text, final, payload, topic=topic)
        self.open.append({"number": self.last, "records": records, "left": records, "sent": False,
                          "again": False, "cost": sum(map(cost, records)), "since": None})
        return self.last

    def next_packet(self, now):
        on_way, records, owners = 0, [], []
        for message in self.open:
            begun = message["sent"] or message["left"] != message["records"]
            if not begun and self.open[0]["number"] <= self.barrier:
                break
            if on_way and on_way + message["cost"] > self.window:
                break
            on_way += message["cost"]
            records += message["left"]
            owners += [message] * len(message["left"])
        count = pack(records, 9, lambda _: True)
        self.has_begun |= count > 0
        for message in owners[:count]:
            message["left"] = message["left"][1:]
            message["sent"] = not message["left"]
            if message["sent"] and message["since"] is None:
                message["since"] = now
        return count and {"kind": "PUBLISH", "first": owners[0]["number"],
                          "records": records[:count]}

    def change_token(self):
        """Another token may allow what is refused now: no message begins before those that were
        sent are answered."""
        self.barrier = max((m["number"] for m in self.open
                            if m["sent"] or m["left"] != m["records"]), default=0)

    def check(self, number, count):
        """Answers are to the oldest messages, and to such as were sent to their end."""
        answered = self.open[:count]
        fits = len(answered) == count and answered[0]["number"] == number
        if not fits or not all(message["sent"] for message in answered):
            raise Refused("INCONSISTENT", f"answers to {count} from {number} on")


class Client(Endpoint):
    sender = "server"

    def __init__(self, options):
        super().__init__()
        self.state = "off"
        self.publisher_id = bytes.fromhex(options.get("publisher", "00" * 16))
        self.epoch, self.token = options.get("epoch", 0), options.get("token", "")
        self.window = options.get("window", 1 << 20)
        self.largest_message = options.get("largest_message", 8 << 20)
        self.publisher = Publisher(any(self.publisher_id))
        self.subscriptions, self.subscriptions_made = {}, 0
        self.token_owed = False
        self.to_unsubscribe = []
        #: Of the log and the node, once WELCOME has come.
        self.log, self.peer_largest = None, MIN_LARGEST_MESSAGE

    # The application.

    def attach(self, now):
        """There is a new connection."""
        self.detach(now)
        self.state, self.close_code = "connecting", None

    def detach(self, now):
        """The connection is lost."""
        self.state = "off"
        self.abort_owed = self.pong = self.ping_at = None
        self.ping_owed = self.token_owed = False
        self.to_unsubscribe = []
        for subscription in self.subscriptions.values():
            if not subscription.is_over:
                subscription.reset()
        self.events += [{"unknown": number} for number in self.publisher.reset()]
        self.expire(now)

    def subscribe(self, pattern, start, largest_lag):
        self.subscriptions_made += 1
        number = self.subscriptions_made
        self.subscriptions[number] = Subscription(number, pattern, start, largest_lag, self.window,
                                                  self.largest_message)
        return number

    def unsubscribe(self, number):
        subscription = self.subscriptions[number]
        subscription.items = []
        if subscription.is_over:
            return
        if subscription.state == "off":
            return subscription.finish("unsubscribed")
        subscription.state, subscription.parts, subscription.incomplete = "unsubscribing", [], 0
        self.to_unsubscribe.append(number)

    def publish(self, topic, text, final, payload):
        if not is_topic(topic):
            return "invalid topic"
        if len(payload) > self.peer_largest:
            return "too large"
        return self.publisher.add(topic, text, final, payload)

    def set_token(self, token):
        self.token, self.token_owed = token, self.state in ("asked", "open")
        if self.token_owed:
            self.publisher.change_token()

    # Packets.

    def within(self, packet):
        subscription = self.subscriptions.get(packet["subscription"])
        if subscription is None or subscription.is_over:
            raise Refused("UNEXPECTED", f"subscription {packet['subscription']}")
        if subscription.state == "unsubscribing":
            return IGNORED
        return subscription.parts[-1] if subscription.parts else None

    def check_state(self, kind):
        if kind != "ABORT" and (self.state == "asked") != (kind in ("WELCOME", "REJECT")):
            raise Refused("UNEXPECTED", kind)

    def handle_packet(self, now, packet):
        if self.handle_sign(now, packet):
            return
        kind = packet["kind"]
        if kind == "WELCOME":
            self.handle_welcome(now, packet)
        elif kind == "REJECT":
            self.events.append({"rejected": REJECTIONS[packet["reason"]],
                                "retry_after": packet["retry_after"], "text": packet["text"]})
            self.end(1000)
        elif kind == "GOAWAY":
            self.events.append({"go_away_within": packet["window"], "text": packet["text"]})
        elif kind == "PUBLISHED":
            self.handle_published(packet)
        elif kind == "REFUSED":
            self.handle_refused(packet)
        else:
            self.within(packet)
            if kind == "ENDED" and packet["subscription"] in self.to_unsubscribe:
                self.to_unsubscribe.remove(packet["subscription"])
            self.subscriptions[packet["subscription"]].handle(packet, self.log)

    def handle_welcome(self, now, packet):
        self.state, self.log = "open", packet["log"]
        self.peer_largest = packet["largest_message"]
        self.events.append({"welcome": packet["log"].hex(), "name": packet["name"]})
        self.publisher.window, self.publisher.once = packet["publish_window"], packet["once"]
        self.expire(now)

    def expire(self, now):
        self.events += [{"unknown": number} for number in self.publisher.expire(now)]

    def handle_timeout(self, now):
        self.expire(now)

    def handle_published(self, packet):
        number = packet["first"]
        self.publisher.check(number, sum(count for count, _ in packet["runs"]))
        for count, offset in packet["runs"]:
            for at in range(count):
                self.publisher.open.pop(0)
                self.events.append({"published": number, "offset": offset and offset + at,
                                    "durability": packet["durability"]})
                number += 1

    def handle_refused(self, packet):
        number, reason = packet["number"], REFUSALS[packet["reason"]]
        self.publisher.check(number, 1)
        message = self.publisher.open.pop(0)
        # What an earlier connection brought may be stored.
        may_be_stored = reason == "unknown" or (message["again"] and reason != "invalid topic")
        self.events.append({"refused": number, "reason": reason, "text": packet["text"]}
                           | ({"may_be_stored": True} if may_be_stored else {}))

    # What is sent.

    def next_packet(self, now):
        if self.state == "connecting":
            self.state = "asked"
            return {"kind": "HELLO", "publisher": self.publisher_id, "epoch": self.epoch,
                    "largest_message": self.largest_message, "token": self.token}
        if self.state == "off":
            return None
        sign = self.next_sign(now)
        if sign:
            return sign
        if self.token_owed:
            self.token_owed = False
            return {"kind": "TOKEN", "token": self.token}
        if self.to_unsubscribe:
            return {"kind": "UNSUBSCRIBE", "subscription": self.to_unsubscribe.pop(0)}
        for subscription in self.subscriptions.values():
            packet = subscription.next_packet()
            if packet:
                return packet
        return self.publisher.next_packet(now) if self.state == "open" else None
