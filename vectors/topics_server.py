"""The server's side of one connection of unstall.topics.v1, written from SPEC-TOPICS.md alone. The
caller has the log: it is told what the client asks (`events`), and says what is sent. The value
keeps to credit, order and limits. It is made to be read and to check the vectors, not to be fast."""

from packet import MAX_REASON, Refused, malformed
from topics_packet import (ENDINGS, GAPS, MIN_PUBLISH_WINDOW, REFUSALS, REJECTIONS, SENDERS, cost,
                           decode, encode, is_filter, is_topic, split, write_record)

FILL = 32_768
CODES = {"MALFORMED": 1, "UNKNOWN_KIND": 2, "UNEXPECTED": 3, "SEQUENCE_GAP": 4,
         "CREDIT_EXCEEDED": 6, "MESSAGE_TOO_LARGE": 8, "INVALID_TEXT": 9, "INCONSISTENT": 10,
         "APPLICATION": 12}


def number_of(names, name):
    return next(number for number, known in names.items() if known == name)


def name_of(data):
    """A name as events have it: what is none as bytes."""
    return data.decode() if is_filter(data) else {"invalid": data.hex()}


class Endpoint:
    """What both sides have: ABORT, PING, and how a connection ends."""

    side = None

    def __init__(self):
        #: A connection is `closed` with this code of WebSocket.
        self.state, self.close_code = "hello", None
        self.events = []
        self.abort_owed = self.pong = None
        self.pings, self.ping_owed, self.ping_sent = 0, False, None
        self.ping_at = None

    def handle(self, now, data):
        """One packet; no data is a text message. Gives the error's name, if it is one."""
        if self.state in ("closed", "rejected"):
            return None
        try:
            if data is None:
                raise malformed("a text message")
            packet = decode(data, self.within)
            if not isinstance(packet["kind"], int):
                if SENDERS[packet["kind"]] not in (self.side, "both"):
                    raise Refused("UNEXPECTED", f"{packet['kind']} from the {self.side}")
                self.check_state(packet["kind"])
                self.handle_packet(now, packet)
            elif self.state == "hello":
                raise Refused("UNEXPECTED", "not HELLO")
        except Refused as refused:
            self.fail(refused)
            return refused.code
        return None

    def fail(self, refused):
        # Section 6: before HELLO there is no ABORT.
        self.end(1002, self.state != "hello" and (CODES[refused.code], str(refused)))

    def end(self, code, abort=None):
        self.state, self.close_code, self.abort_owed = "closed", code, abort or None

    def abort(self, text):
        self.end(1000, (CODES["APPLICATION"], text))

    def ping(self):
        self.ping_owed = True

    def handle_sign(self, now, packet):
        """PING, PONG and ABORT: sections 11 and 13."""
        kind = packet["kind"]
        if kind == "PING":
            self.pong = packet["number"]
        elif kind == "PONG":
            if self.ping_at is not None and packet["number"] == self.pings:
                self.events.append({"pong_after": now - self.ping_at})
                self.ping_at = None
        elif kind == "ABORT":
            self.events.append({"aborted_by_peer": packet["code"]})
            self.end(1000)
        else:
            return False
        return True

    def transmit(self, now):
        """The next packet, or nothing."""
        packet = self.farewell() if self.state == "closed" else self.next_packet(now)
        return packet and encode(packet)

    def farewell(self):
        if not self.abort_owed:
            return None
        (code, text), self.abort_owed = self.abort_owed, None
        text = text.encode()[:MAX_REASON].decode(errors="ignore")
        return {"kind": "ABORT", "code": code, "text": text}

    def next_sign(self, now):
        if self.pong is not None:
            number, self.pong = self.pong, None
            return {"kind": "PONG", "number": number}
        if self.ping_owed:
            self.ping_owed, self.ping_at = False, now
            self.pings += 1
            return {"kind": "PING", "number": self.pings}
        return None


def pack(records, size, fits):
    """How many records the next packet takes: about 32 KiB, and at least one."""
    count = 0
    for record in records:
        size += len(write_record(record))
        if not fits(record) or (count and size > FILL):
            break
        count += 1
    return count


class Delivery:
    """One subscription: sections 7 and 8."""

    def __init__(self, packet):
        self.number, self.credit = packet["subscription"], packet["credit"]
        self.spent = 0
        #: Packets and records, in the order in which they are sent.
        self.queue = []

    def add(self, kind, **fields):
        self.queue.append({"kind": kind, "subscription": self.number} | fields)

    def next_packet(self):
        if not self.queue or isinstance(self.queue[0], dict):
            return self.queue.pop(0) if self.queue else None
        count, spent = 0, self.spent
        records = []
        for item in self.queue:
            if isinstance(item, dict):
                break
            records.append(item)

        def fits(record):
            nonlocal spent
            spent += cost(record)
            return spent <= self.credit

        count = pack(records, 5, fits)
        records, self.queue = records[:count], self.queue[count:]
        self.spent += sum(map(cost, records))
        return records and {"kind": "MESSAGES", "subscription": self.number, "records": records}


class Publications:
    """What the client publishes: section 10."""

    def __init__(self, window, largest_message):
        self.window, self.largest_message = window, largest_message
        #: The records of a message that is not whole.
        self.parts = []
        self.last = None
        #: Messages without an answer: the number, the cost, and the answer once it is known.
        self.open = []

    def within(self):
        return self.parts[-1] if self.parts else None

    def accept(self, first, records):
        """The messages that are whole now."""
        expected = self.last if self.parts or self.last is None else self.last + 1
        if expected is not None and first != expected:
            raise Refused("SEQUENCE_GAP", f"{first}, not {expected}")
        if self.last is None:
            self.last = first - 1
        return [whole for whole in map(self.accept_record, records) if whole]

    def accept_record(self, record):
        if not self.parts:
            self.last += 1
            if self.last >= 1 << 64:
                raise Refused("SEQUENCE_GAP", "the numbers end")
            self.open.append({"number": self.last, "cost": 0})
        self.open[-1]["cost"] += cost(record)
        if len(self.open) > 1 and sum(m["cost"] for m in self.open) > self.window:
            raise Refused("CREDIT_EXCEEDED", "the publish window")
        self.parts.append(record)
        payload = b"".join(part.payload for part in self.parts)
        if len(payload) > self.largest_message:
            raise Refused("MESSAGE_TOO_LARGE", str(len(payload)))
        if record.continues:
            return None
        if record.text:
            try:
                payload.decode()
            except UnicodeDecodeError:
                raise Refused("INVALID_TEXT", "not UTF-8") from None
        first, self.parts = self.parts[0], []
        if not is_topic(first.topic):
            self.open[-1]["answer"] = {"refused": "invalid topic"}
        return self.last, first.topic, record.text, record.final, payload

    def answer(self, answer):
        """The answer to the oldest message that has none."""
        next(m for m in self.open if "answer" not in m)["answer"] = answer

    def next_packet(self, durability):
        """PUBLISHED with all answers up to the next one that is missing or REFUSED; or REFUSED."""
        first, runs = None, []
        while self.open and "answer" in self.open[0]:
            number, answer = self.open[0]["number"], self.open[0]["answer"]
            if "refused" in answer:
                if runs:
                    break
                self.open.pop(0)
                return {"kind": "REFUSED", "number": number, "text": answer.get("text", ""),
                        "reason": number_of(REFUSALS, answer["refused"])}
            self.open.pop(0)
            first = first or number
            count, offset = runs[-1] if runs else (0, None)
            if runs and answer["stored"] == (offset and offset + count):
                runs[-1] = (count + 1, offset)
            else:
                runs.append((1, answer["stored"]))
        return runs and {"kind": "PUBLISHED", "durability": durability, "first": first,
                         "runs": runs}


class Server(Endpoint):
    side = "client"

    def __init__(self, options):
        super().__init__()
        self.limits = {"largest_message": options.get("largest_message", 8 << 20),
                       "publish_window": options.get("publish_window", 1 << 20),
                       "once": options.get("once", 120_000),
                       "subscriptions": options.get("subscriptions", 1_000),
                       "durability": options.get("durability", 1),
                       "name": options.get("name", "")}
        assert self.limits["publish_window"] >= MIN_PUBLISH_WINDOW
        self.publications = Publications(self.limits["publish_window"],
                                         self.limits["largest_message"])
        self.deliveries = {}
        self.greeting = self.go_away_owed = None

    # The caller.

    def welcome(self, log, first, last):
        self.greeting = self.limits | {"kind": "WELCOME", "log": log, "first": first, "last": last}
        self.state = "open"

    def reject(self, reason, retry_after, text):
        self.greeting = {"kind": "REJECT", "reason": number_of(REJECTIONS, reason),
                         "retry_after": retry_after, "text": text}
        self.state = "rejected"

    def subscribed(self, number, after, time, end):
        self.deliveries[number].add("SUBSCRIBED", after=after, time=time, end=end)

    def deliver(self, number, text, final, payload, topic, offset, time):
        self.deliveries[number].queue += split(text, final, payload, topic=topic, offset=offset,
                                               time=time)

    def gap(self, number, reason, certain, after, through):
        self.deliveries[number].add("GAP", reason=number_of(GAPS, reason), certain=certain,
                                    after=after, through=through)

    def caught_up(self, number, offset, time):
        self.deliveries[number].add("CAUGHT_UP", offset=offset, time=time)

    def ended(self, number, reason, text):
        self.deliveries[number].add("ENDED", reason=number_of(ENDINGS, reason), text=text)

    def go_away(self, window, text):
        self.go_away_owed = {"kind": "GOAWAY", "window": window, "text": text}

    # Packets.

    def within(self, _):
        return self.publications.within()

    def check_state(self, kind):
        if (self.state == "hello") != (kind == "HELLO"):
            raise Refused("UNEXPECTED", kind)

    def handle_packet(self, now, packet):
        if self.handle_sign(now, packet):
            return
        kind, number = packet["kind"], packet.get("subscription")
        delivery = self.deliveries.get(number)
        if kind == "HELLO":
            self.state = "asked"
            self.events.append({"hello": packet["publisher"].hex(), "epoch": packet["epoch"],
                                "token": packet["token"]})
        elif kind == "TOKEN":
            self.events.append({"token": packet["token"]})
        elif kind == "SUBSCRIBE":
            self.handle_subscribe(packet)
        elif kind == "CREDIT" and delivery:
            delivery.credit = max(delivery.credit, packet["credit"])
        elif kind == "UNSUBSCRIBE" and delivery:
            self.events.append({"unsubscribe": number})
            # ENDED for another reason may be waiting already: then that is the answer.
            ended = [item for item in delivery.queue if isinstance(item, dict)
                     and item["kind"] == "ENDED"]
            delivery.queue = ended
            if not ended:
                self.ended(number, "unsubscribed", "")
        elif kind == "PUBLISH":
            for number, topic, text, final, payload in self.publications.accept(
                    packet["first"], packet["records"]):
                if is_topic(topic):
                    self.events.append({"publish": number, "topic": topic, "is_text": text,
                                        "final": final, "payload": payload})

    def handle_subscribe(self, packet):
        number = packet["subscription"]
        if number in self.deliveries:
            raise Refused("UNEXPECTED", f"subscription {number} is in use")
        taken = len(self.deliveries)
        self.deliveries[number] = Delivery(packet)
        if not is_filter(packet["filter"]):
            return self.ended(number, "invalid filter", "")
        if taken >= self.limits["subscriptions"]:
            return self.ended(number, "too many subscriptions", "")
        self.events.append({"subscribe": number, "filter": name_of(packet["filter"]),
                            "largest_lag": packet["largest_lag"], "start": packet["start"]})

    # What is sent.

    def next_packet(self, now):
        if self.greeting:
            packet, self.greeting = self.greeting, None
            if packet["kind"] == "REJECT":
                self.end(1000)
            return packet
        if self.state != "open":
            return None
        if self.go_away_owed:
            packet, self.go_away_owed = self.go_away_owed, None
            return packet
        return (self.next_sign(now) or self.publications.next_packet(self.limits["durability"])
                or self.next_of_deliveries())

    def next_of_deliveries(self):
        for number, delivery in list(self.deliveries.items()):
            packet = delivery.next_packet()
            if packet:
                if packet["kind"] == "ENDED":
                    del self.deliveries[number]
                return packet
        return None
