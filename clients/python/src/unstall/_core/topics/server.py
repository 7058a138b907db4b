"""The server's side of one connection of unstall.topics.v1, written from SPEC-TOPICS.md alone. The
caller is told what the client asks (`events`), and answers; the value reads the log for its
subscriptions itself. It is made to be read and to check the vectors, not to be fast."""

from __future__ import annotations

from typing import Any

from ..packet import Refused
from .delivery import Delivery
from .endpoint import Endpoint
from .log import Log
from .names import is_filter, is_topic
from .packet import REFUSALS, REJECTIONS, encode, number_of
from .records import Record, cost

Packet = dict[str, Any]
#: A message that has arrived as a whole: number, topic, whether it is text, whether it is final, payload.
Whole = tuple[int, bytes, bool, bool, bytes]


class Publications:
    """What the client publishes: section 10."""

    def __init__(self, window: int, largest_message: int) -> None:
        self.window, self.largest_message = window, largest_message
        #: The connection has a publisher id.
        self.is_numbered = False
        #: After a refusal that may pass, nothing more is stored until the client knows it: the
        #: number up to which it has to know, the PING that asks, and what waits meanwhile.
        self.halt: dict[str, int] | None = None
        self.parked: list[Whole] = []
        self.pings = 0
        #: The records of a message that is not whole.
        self.parts: list[Record] = []
        self.last: int | None = None
        #: Messages without an answer: the number, the cost, and the answer once it is known.
        self.open: list[dict[str, Any]] = []

    def within(self) -> Record | None:
        return self.parts[-1] if self.parts else None

    def accept(self, first: int, records: list[Record], is_expired: bool) -> list[Whole]:
        """The messages that are whole now, and not refused yet."""
        expected = self.last if self.parts or self.last is None else self.last + 1
        if expected is not None and first != expected:
            raise Refused("SEQUENCE_GAP", f"{first}, not {expected}")
        if self.last is None:
            self.last = first - 1
        found = [self.accept_record(record, is_expired) for record in records]
        wholes = [whole for whole in found if whole]
        if self.halt:
            self.parked += wholes
            return []
        return wholes

    def refuse(self, number: int, reason: str) -> None:
        """Section 10: if this answer is lost, the message comes again, and none behind it may be
        stored by then. Other refusals come again with the same message."""
        if reason in ("full", "unknown", "unavailable") and self.is_numbered:
            self.halt = {"through": max(number, self.halt["through"] if self.halt else 0), "ping": 0}

    def next_ping(self) -> Packet | None:
        if not self.halt or not self.parked or self.halt["ping"]:
            return None
        if self.open and self.open[0]["number"] <= self.halt["through"]:
            return None
        self.pings += 1
        self.halt["ping"] = self.pings
        return {"kind": "PING", "number": self.pings}

    def handle_pong(self, number: int) -> list[Whole]:
        """The messages that may be stored now."""
        if not self.halt or self.halt["ping"] != number:
            return []
        self.halt, parked, self.parked = None, self.parked, []
        return parked

    def accept_record(self, record: Record, is_expired: bool) -> Whole | None:
        if not self.parts:
            self.last = (self.last or 0) + 1
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
        refusal = "invalid topic" if not is_topic(first.topic or b"") else None
        refusal = "expired" if self.open[-1]["expired"] else refusal
        if refusal:
            self.open[-1]["answer"] = {"refused": refusal}
            self.refuse(self.last or 0, refusal)
            return None
        return self.last or 0, first.topic or b"", record.text, record.final, payload

    def answer(self, answer: dict[str, Any]) -> None:
        """The answer to the oldest message that has none."""
        message = next(m for m in self.open if "answer" not in m)
        message["answer"] = answer
        if "refused" in answer:
            self.refuse(message["number"], answer["refused"])

    def next_packet(self, durability: int) -> Packet | None:
        """PUBLISHED with all answers up to the next one that is missing or REFUSED; or REFUSED."""
        first: int | None = None
        runs: list[tuple[int, int]] = []
        while self.open and "answer" in self.open[0]:
            number, answer = self.open[0]["number"], self.open[0]["answer"]
            if "refused" in answer:
                if runs:
                    break
                self.open.pop(0)
                return {
                    "kind": "REFUSED",
                    "number": number,
                    "text": answer.get("text", ""),
                    "reason": number_of(REFUSALS, answer["refused"]),
                }
            self.open.pop(0)
            first = first or number
            count, offset = runs[-1] if runs else (0, 0)
            if runs and answer["stored"] == (offset and offset + count):
                runs[-1] = (count + 1, offset)
            else:
                runs.append((1, answer["stored"]))
        if not runs:
            return None
        return {"kind": "PUBLISHED", "durability": durability, "first": first, "runs": runs}


class Server(Endpoint):
    sender = "client"

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.limits = {
            "largest_message": options.get("largest_message", 8 << 20),
            "publish_window": options.get("publish_window", 1 << 20),
            "once": options.get("once", 120_000),
            "subscriptions": options.get("subscriptions", 1_000),
            "durability": options.get("durability", 1),
            "name": options.get("name", ""),
        }
        self.publications = Publications(self.limits["publish_window"], self.limits["largest_message"])
        #: Each sends a packet in its turn.
        self.deliveries: dict[int, Delivery] = {}
        self.log: Log | None = None
        self.peer_largest = 0
        self.greeting: Packet | None = None
        self.go_away_owed: Packet | None = None
        self.is_expired = False

    # The caller.

    def welcome(self, log: Log) -> None:
        self.log, self.state = log, "open"
        self.greeting = self.limits | {"kind": "WELCOME", "log": log.id, "first": log.first, "last": log.last}

    def reject(self, reason: str, retry_after: int, text: str) -> None:
        self.greeting = {
            "kind": "REJECT",
            "reason": number_of(REJECTIONS, reason),
            "retry_after": retry_after,
            "text": text,
        }
        self.state, self.close_code = "rejected", 1000

    def expire(self) -> None:
        """The token has expired: section 6."""
        self.is_expired = True
        for delivery in self.deliveries.values():
            delivery.finish("expired")

    def go_away(self, window: int, text: str) -> None:
        self.go_away_owed = {"kind": "GOAWAY", "window": window, "text": text}

    # Packets.

    def within(self, _: Any) -> Record | None:
        return self.publications.within()

    def check_state(self, kind: str) -> None:
        if (self.state == "hello") != (kind == "HELLO"):
            raise Refused("UNEXPECTED", kind)

    def handle_packet(self, now: float, packet: Packet) -> None:
        kind = packet["kind"]
        if kind == "PONG":
            return self.tell_published(self.publications.handle_pong(packet["number"]))
        if self.handle_sign(now, packet):
            return None
        if kind == "HELLO":
            self.state, self.peer_largest = "asked", packet["largest_message"]
            self.publications.is_numbered = any(packet["publisher"])
            self.events.append(
                {"hello": packet["publisher"].hex(), "epoch": packet["epoch"], "token": packet["token"]}
            )
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

    def handle_subscribe(self, packet: Packet) -> None:
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
            self.events.append(
                {
                    "subscribe": number,
                    "filter": packet["filter"],
                    "largest_lag": packet["largest_lag"],
                    "start": packet["start"],
                }
            )

    def handle_publish(self, packet: Packet) -> None:
        self.tell_published(self.publications.accept(packet["first"], packet["records"], self.is_expired))

    def tell_published(self, messages: list[Whole]) -> None:
        for number, topic, text, final, payload in messages:
            self.events.append(
                {"publish": number, "topic": topic, "is_text": text, "final": final, "payload": payload}
            )

    # What is sent.

    def transmit(self, now: float) -> bytes | None:
        """The next packet, or nothing."""
        packet = self.farewell() if self.state == "closed" else self.next_packet(now)
        return encode(packet) if packet else None

    def next_packet(self, now: float) -> Packet | None:
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
        return (
            publications.next_packet(self.limits["durability"])
            or publications.next_ping()
            or self.next_of_deliveries(now)
        )

    def next_of_deliveries(self, now: float) -> Packet | None:
        if self.log is None:
            return None
        for number, delivery in list(self.deliveries.items()):
            packet = delivery.next_packet(self.log, now, self.peer_largest)
            if packet:
                # It is the others' turn now.
                del self.deliveries[number]
                if delivery.stage != "over":
                    self.deliveries[number] = delivery
                return packet
        return None
