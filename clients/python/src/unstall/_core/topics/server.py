"""The server's side of one connection of unstall.topics.v1, written from SPEC-TOPICS.md alone. The
caller is told what the client asks (`events`), and answers; the value reads the log for its
subscriptions itself. It is made to be read and to check the vectors, not to be fast."""

from ..packet import Refused
from .delivery import Delivery
from .endpoint import Endpoint
from .names import is_filter, is_topic
from .packet import REFUSALS, REJECTIONS, encode, number_of
from .records import cost


class Publications:
    """What the client publishes: section 10."""

    def __init__(self, window, largest_message):
        self.window, self.largest_message = window, largest_message
        #: The connection has a publisher id.
        self.is_numbered = False
        #: After a refusal that may pass, nothing more is stored until the client knows it: the
        #: number up to which it has to know, the PING that asks, and what waits meanwhile.
        self.halt, self.parked, self.pings = None, [], 0
        #: The records of a message that is not whole.
        self.parts = []
        self.last = None
        #: Messages without an answer: the number, the cost, and the answer once it is known.
        self.open = []

    def within(self):
        return self.parts[-1] if self.parts else None

    def accept(self, first, records, is_expired):
        """The messages that are whole now, and not refused yet."""
        expected = self.last if self.parts or self.last is None else self.last + 1
        if expected is not None and first != expected:
            raise Refused("SEQUENCE_GAP", f"{first}, not {expected}")
        if self.last is None:
            self.last = first - 1
        wholes = [self.accept_record(record, is_expired) for record in records]
        wholes = [whole for whole in wholes if whole]
        if self.halt:
            self.parked += wholes
            return []
        return wholes

    def refuse(self, number, reason):
        """Section 10: if this answer is lost, the message comes again, and none behind it may be
        stored by then. Other refusals come again with the same message."""
        if reason in ("full", "unknown", "unavailable") and self.is_numbered:
            self.halt = {"through": max(number, self.halt["through"] if self.halt else 0),
                         "ping": None}

    def next_ping(self):
        is_told = self.halt and (not self.open or self.open[0]["number"] > self.halt["through"])
        if not self.parked or not is_told or self.halt["ping"]:
            return None
        self.pings += 1
        self.halt["ping"] = self.pings
        return {"kind": "PING", "number": self.pings}

    def handle_pong(self, number):
        """The messages that may be stored now."""
        if not self.halt or self.halt["ping"] != number:
            return []
        self.halt, parked, self.parked = None, self.parked, []
        return parked

    def accept_record(self, record, is_expired):
        if not self.parts:
            self.last += 1
            self.open.append({"number": self.last, "cost": 0, "expired": is_expired})
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
        refusal = "invalid topic" if not is_topic(first.topic) else None
        refusal = "expired" if self.open[-1]["expired"] else refusal
        if refusal:
            self.open[-1]["answer"] = {"refused": refusal}
            self.refuse(self.last, refusal)
            return None
        return self.last, first.topic, record.text, record.final, payload

    def answer(self, answer):
        """The answer to the oldest message that has none."""
        message = next(m for m in self.open if "answer" not in m)
        message["answer"] = answer
        if "refused" in answer:
            self.refuse(message["number"], answer["refused"])

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
    sender = "client"

    def __init__(self, options):
        super().__init__()
        self.limits = {"largest_message": options.get("largest_message", 8 << 20),
                       "publish_window": options.get("publish_window", 1 << 20),
                       "once": options.get("once", 120_000),
                       "subscriptions": options.get("subscriptions", 1_000),
                       "durability": options.get("durability", 1),
                       "name": options.get("name", "")}
        self.publications = Publications(self.limits["publish_window"],
                                         self.limits["largest_message"])
        #: Each sends a packet in its turn.
        self.deliveries = {}
        self.log = self.peer_largest = self.greeting = self.go_away_owed = None
        self.is_expired = False

    # The caller.

    def welcome(self, log):
        self.log, self.state = log, "open"
        self.greeting = self.limits | {"kind": "WELCOME", "log": log.id, "first": log.first,
                                       "last": log.last}

    def reject(self, reason, retry_after, text):
        self.greeting = {"kind": "REJECT", "reason": number_of(REJECTIONS, reason),
                         "retry_after": retry_after, "text": text}
        self.state, self.close_code = "rejected", 1000

    def expire(self):
        """The token has expired: section 6."""
        self.is_expired = True
        for delivery in self.deliveries.values():
            delivery.finish("expired")

    def go_away(self, window, text):
        self.go_away_owed = {"kind": "GOAWAY", "window": window, "text": text}

    # Packets.

    def within(self, _):
        return self.publications.within()

    def check_state(self, kind):
        if (self.state == "hello") != (kind == "HELLO"):
            raise Refused("UNEXPECTED", kind)

    def handle_packet(self, now, packet):
        kind = packet["kind"]
        if kind == "PONG":
            return self.tell_published(self.publications.handle_pong(packet["number"]))
        if self.handle_sign(now, packet):
            return None
        if kind == "HELLO":
            self.state, self.peer_largest = "asked", packet["largest_message"]
            self.publications.is_numbered = any(packet["publisher"])
            self.events.append({"hello": packet["publisher"].hex(), "epoch": packet["epoch"],
                                "token": packet["token"]})
        elif kind == "TOKEN":
            self.is_expired = False
            self.events.append({"token": packet["token"]})
        elif kind == "SUBSCRIBE":
            self.handle_subscribe(packet)
        elif kind == "PUBLISH":
            self.handle_publish(packet)
        elif packet["subscription"] in self.deliveries:
            delivery = self.deliveries[packet["subscription"]]
            if kind == "CREDIT":
                delivery.credit = max(delivery.credit, packet["credit"])
            elif delivery.stage != "ending":
                delivery.finish("unsubscribed")
                self.events.append({"unsubscribe": delivery.number})
        return None

    def handle_subscribe(self, packet):
        number = packet["subscription"]
        if number in self.deliveries:
            raise Refused("UNEXPECTED", f"subscription {number} is in use")
        open_ones = [d for d in self.deliveries.values() if d.stage != "ending"]
        delivery = self.deliveries[number] = Delivery(packet)
        if not is_filter(packet["filter"]):
            delivery.finish("invalid filter")
        elif len(open_ones) >= self.limits["subscriptions"]:
            delivery.finish("too many subscriptions")
        elif self.is_expired:
            delivery.finish("expired")
        else:
            self.events.append({"subscribe": number, "filter": packet["filter"],
                                "largest_lag": packet["largest_lag"], "start": packet["start"]})

    def handle_publish(self, packet):
        self.tell_published(self.publications.accept(packet["first"], packet["records"],
                                                     self.is_expired))

    def tell_published(self, messages):
        for number, topic, text, final, payload in messages:
            self.events.append({"publish": number, "topic": topic, "is_text": text,
                                "final": final, "payload": payload})

    # What is sent.

    def transmit(self, now):
        """The next packet, or nothing."""
        packet = self.farewell() if self.state == "closed" else self.next_packet(now)
        return packet and encode(packet)

    def next_packet(self, now):
        if self.greeting:
            packet, self.greeting = self.greeting, None
            if packet["kind"] == "REJECT":
                self.end(1000)
            return packet
        if self.state != "open":
            return None
        sign = self.next_sign(now)
        if sign:
            return sign
        if self.go_away_owed:
            packet, self.go_away_owed = self.go_away_owed, None
            return packet
        publications = self.publications
        return (publications.next_packet(self.limits["durability"]) or publications.next_ping()
                or self.next_of_deliveries(now))

    def next_of_deliveries(self, now):
        for number, delivery in list(self.deliveries.items()):
            packet = delivery.next_packet(self.log, now, self.peer_largest)
            if packet:
                # It is the others' turn now.
                del self.deliveries[number]
                if delivery.stage != "over":
                    self.deliveries[number] = delivery
                return packet
        return None
