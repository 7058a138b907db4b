"""The client of unstall.topics.v1, over any number of connections, as a value without I/O:
SPEC-TOPICS.md. It keeps the positions of its subscriptions and the messages without an answer.

The caller tells it of connections (:meth:`Client.attach`, :meth:`Client.detach`) and of packets
(:meth:`Client.handle`), sends what :meth:`Client.transmit` gives, and then looks at ``events`` and
``readable``. It brings the time, in milliseconds.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from ..packet import Refused, malformed
from .delivered import Item, Position
from .endpoint import Endpoint
from .events import Event, GoAway, Rejected, Unknown, Welcomed
from .names import is_topic
from .packet import KINDS, MAX_PACKET, REJECTIONS, encode
from .publishing import Publisher
from .records import Record
from .subscription import Subscription

MESSAGES = KINDS["MESSAGES"]
Packet = dict[str, Any]


class Client(Endpoint):
    """``state`` is ``off``, ``connecting``, ``asked`` (HELLO is sent), ``open`` or ``closed``."""

    sender = "server"

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.state = "off"
        self.publisher_id = bytes.fromhex(options.get("publisher", "00" * 16))
        self.epoch, self.token = options.get("epoch", 0), options.get("token", "")
        self.window = options.get("window", 1 << 20)
        self.largest_message = options.get("largest_message", 8 << 20)
        self.publisher = Publisher(any(self.publisher_id))
        self.subscriptions: dict[int, Subscription] = {}
        self.subscriptions_made = 0
        self.attachment = 0
        self.token_owed = False
        self.to_unsubscribe: list[int] = []
        #: Numbers of subscriptions that may have something to send.
        self.line: list[int] = []
        #: Numbers of subscriptions that have new items.
        self.readable: set[int] = set()
        self.welcomed: Welcomed | None = None
        #: Packets that brought messages or answers, over all connections.
        self.progress = 0

    # Connections.

    def attach(self, now: float, token: str | None = None) -> None:
        """There is a new connection."""
        self.detach(now)
        self.token = self.token if token is None else token
        self.state, self.close_code = "connecting", None
        self.attachment += 1
        for number in self.subscriptions:
            self.wake(number)

    def detach(self, now: float) -> None:
        """The connection is lost."""
        self.state, self.welcomed = "off", None
        self.abort_owed = self.pong = self.ping_at = None
        self.ping_owed = self.token_owed = False
        self.to_unsubscribe = []
        for number, subscription in list(self.subscriptions.items()):
            if subscription.is_over:
                continue
            subscription.reset()
            if subscription.is_over and subscription.is_forgotten:
                del self.subscriptions[number]
            elif subscription.items:
                self.readable.add(number)
        self.events += self.publisher.reset()
        self.handle_timeout(now)

    def next_timeout(self) -> float | None:
        """When :meth:`handle_timeout` is to be called."""
        return self.publisher.deadline()

    def handle_timeout(self, now: float) -> None:
        self.events += self.publisher.expire(now)

    # The application.

    def subscribe(
        self, pattern: bytes, start: Packet, largest_lag: int = 0, window: int | None = None
    ) -> int:
        """Begins a subscription. Gives its number."""
        self.subscriptions_made += 1
        number = self.subscriptions_made
        self.subscriptions[number] = Subscription(
            number, pattern, start, largest_lag, window or self.window, self.largest_message
        )
        self.wake(number)
        return number

    def unsubscribe(self, number: int) -> None:
        """Ends a subscription. What it has delivered and was not taken is gone."""
        if self.subscriptions[number].leave():
            self.to_unsubscribe.append(number)

    def forget(self, number: int) -> None:
        """Ends a subscription of which the application wants to hear nothing more."""
        self.unsubscribe(number)
        if self.subscriptions[number].is_over:
            del self.subscriptions[number]
        else:
            self.subscriptions[number].is_forgotten = True

    def resubscribe(self, number: int) -> bool:
        """Asks again for a subscription that the server has ended, from its position. Whether it was
        ended on this connection."""
        subscription = self.subscriptions[number]
        subscription.state = "off"
        subscription.reset()
        self.wake(number)
        return self.state == "open" and subscription.attachment == self.attachment

    def next_item(self, number: int) -> Item | None:
        return self.subscriptions[number].next_item()

    def taken(self, number: int, size: int) -> bool:
        """The application has taken messages of this cost. Whether there is something to send now."""
        subscription = self.subscriptions.get(number)
        if subscription is None:
            return False
        subscription.taken(size)
        if not subscription.wants_packet():
            return False
        self.wake(number)
        return True

    def position(self, number: int) -> Position | None:
        return self.subscriptions[number].position

    def publish(self, topic: bytes, text: bool, final: bool, payload: bytes) -> int | str:
        """Takes a message. Gives its number, or why it is not taken."""
        if not is_topic(topic):
            return "invalid topic"
        if len(payload) > self.publisher.largest_message:
            return "too large"
        return self.publisher.add(topic, text, final, payload)

    def set_token(self, token: str) -> None:
        """From now on the client is somebody else, or for longer."""
        self.token, self.token_owed = token, self.state in ("asked", "open")
        if self.token_owed:
            self.publisher.change_token()

    def wake(self, number: int) -> None:
        subscription = self.subscriptions[number]
        if not subscription.in_line:
            subscription.in_line = True
            heappush(self.line, number)

    # Packets.

    def handle(self, now: float, data: bytes | None) -> str | None:
        if not data or data[0] != MESSAGES or self.state != "open":
            return super().handle(now, data)
        try:
            self.handle_messages(data)
        except Refused as refused:
            self.fail(refused)
            return refused.code
        return None

    def handle_messages(self, data: bytes) -> None:
        if not 5 <= len(data) <= MAX_PACKET:
            raise malformed("a packet that is cut short or too long")
        number = int.from_bytes(data[1:5], "big")
        subscription = self.known(number)
        if subscription.state == "unsubscribing":
            return
        subscription.handle_messages(data)
        self.progress += 1
        self.readable.add(number)
        if subscription.wants_packet():
            self.wake(number)

    def known(self, number: int) -> Subscription:
        subscription = self.subscriptions.get(number)
        if subscription is None or subscription.state in ("off", "over"):
            raise Refused("UNEXPECTED", f"a packet of subscription {number}, which does not exist")
        return subscription

    def within(self, packet: Packet) -> Record | None:
        raise Refused("UNEXPECTED", "MESSAGES before WELCOME")

    def check_state(self, kind: str) -> None:
        if kind != "ABORT" and (self.state == "asked") != (kind in ("WELCOME", "REJECT")):
            raise Refused("UNEXPECTED", kind)

    def handle_packet(self, now: float, packet: Packet) -> None:
        if self.handle_sign(now, packet):
            return
        kind = packet["kind"]
        if kind == "WELCOME":
            self.handle_welcome(now, packet)
        elif kind == "REJECT":
            self.events.append(Rejected(REJECTIONS[packet["reason"]], packet["retry_after"], packet["text"]))
            self.end(1000)
        elif kind == "GOAWAY":
            # Only the last one counts, so a server cannot make them many.
            self.events = [event for event in self.events if not isinstance(event, GoAway)]
            self.events.append(GoAway(packet["window"], packet["text"]))
        elif kind == "PUBLISHED":
            self.events += self.publisher.handle_published(packet)
            self.progress += 1
        elif kind == "REFUSED":
            self.events.append(self.publisher.handle_refused(packet))
        else:
            self.handle_subscription(packet)

    def handle_subscription(self, packet: Packet) -> None:
        number = packet["subscription"]
        subscription = self.known(number)
        is_end = packet["kind"] == "ENDED"
        if is_end and number in self.to_unsubscribe:
            self.to_unsubscribe.remove(number)
        subscription.handle(packet, self.log)
        if is_end and subscription.is_forgotten:
            del self.subscriptions[number]
        else:
            self.readable.add(number)

    @property
    def log(self) -> bytes:
        return self.welcomed.log if self.welcomed else bytes(16)

    def handle_welcome(self, now: float, packet: Packet) -> None:
        self.state = "open"
        self.welcomed = Welcomed(
            packet["log"],
            packet["first"],
            packet["last"],
            packet["largest_message"],
            packet["durability"],
            packet["name"],
        )
        self.events.append(self.welcomed)
        self.publisher.welcome(packet["publish_window"], packet["largest_message"], packet["once"])
        self.handle_timeout(now)

    # What is sent.

    def next_packet(self, now: float) -> Packet | None:
        if self.state == "connecting":
            self.state = "asked"
            return {
                "kind": "HELLO",
                "publisher": self.publisher_id,
                "epoch": self.epoch,
                "largest_message": self.largest_message,
                "token": self.token,
            }
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
        while self.line:
            subscription = self.subscriptions.get(heappop(self.line))
            if subscription is None:
                continue
            subscription.in_line = False
            packet = subscription.next_packet()
            if packet:
                subscription.attachment = self.attachment
                return packet
        return None

    def transmit(self, now: float) -> bytes | None:
        """The next packet to send, if there is one."""
        packet = self.farewell() if self.state == "closed" else self.next_packet(now)
        if packet:
            return encode(packet)
        return self.publisher.next_packet(now) if self.state == "open" else None

    def give_up(self, now: float) -> list[tuple[int, bool]]:
        """Gives up every message without an answer, and the connection. Gives the number of each
        message, and whether it may be stored."""
        given = list(self.publisher.give_up())
        self.detach(now)
        return given


__all__ = ["Client", "Event", "Unknown"]
