"""A session of unstall.v1 as a value, written from SPEC.md alone. It has no socket and no clock: the caller
brings the time, in milliseconds, and carries the packets of the current connection.

After each call, `transmit` gives the packets to be sent, `events` has what happened, and `next_timeout` says
when `handle_timeout` has to be called.
"""

from __future__ import annotations

import hmac
from typing import Any

from .incoming import Batch, Incoming
from .outgoing import Outgoing
from .packet import (
    DATA,
    MAX_PACKET,
    MAX_REASON,
    MAX_RECORD,
    MIN_LARGEST_MESSAGE,
    Packet,
    Refused,
    decode,
    encode,
    malformed,
)

MIN_WINDOW = 262_144
ACK_DELAY = 20
HANDSHAKE = 10_000
CLOSE_TIMEOUT, APPLICATION = 11, 12
DATA_KIND = bytes([DATA])
#: Section 14: what a peer announces is cut.
MAX_CLOSE, MAX_GO_AWAY = 300_000, 3_600_000
CODES = [
    "MALFORMED",
    "UNKNOWN_KIND",
    "UNEXPECTED",
    "SEQUENCE_GAP",
    "SEQUENCE_EXHAUSTED",
    "CREDIT_EXCEEDED",
    "INVALID_ACK",
    "MESSAGE_TOO_LARGE",
    "INVALID_TEXT",
    "INCONSISTENT",
]
REJECTIONS = ["expired", "unknown", "not yours", "superseded", "full", "inconsistent"]


#: Why a session ended, and what happened: names, or a name with its fields.
Reason = str | dict[str, Any]
Event = str | dict[str, Any]


class Session:
    """One side of it, the client's or the server's: sections 6 and 9 to 15.

    The options are `window`, `largest_window`, `largest_message`, `replay` (bytes), `expiry` (milliseconds)
    and `acknowledge_by_hand`. The caller draws the id and the token; a server has its epoch.
    """

    def __init__(
        self, client: bool, options: dict[str, Any], session_id: bytes, token: bytes, epoch: int = 0
    ) -> None:
        window = options.get("window", 1 << 20)
        self.largest_message: int = options.get("largest_message", 8 << 20)
        self.incoming = Incoming(window, options.get("largest_window", 8 << 20), self.largest_message)
        self.outgoing = Outgoing(options.get("replay", 16 << 20))
        self.own_life = self.life = options.get("expiry", 120_000)
        self.by_hand: bool = options.get("acknowledge_by_hand", False)
        self.client, self.session_id, self.epoch = client, session_id, epoch
        self.confirmed = token
        self.offered: bytes | None = None
        self.peer_largest: int | None = None
        #: Section 13.
        self.link, self.generation = "detached", 0
        self.state = "open"
        self.reason: Reason | None = None
        #: CLOSE of this side (deadline, code, reason) and of the peer.
        self.close_frame: tuple[float, int, str] | None = None
        self.peer_close: Packet | None = None
        self.close_sent = self.end_sent = self.end_received = self.end_told = False
        self.pong: int | None = None
        self.go_away: tuple[int, str] | None = None
        self.abort_owed: tuple[int, str] | None = None
        self.ping_number, self.ping_owed = 0, False
        self.ping_sent: float | None = None
        #: The size of the message that was refused last for want of room.
        self.refused: int | None = None
        #: How long the server asks to wait after it refused the session as `full`; the words of ABORT.
        self.retry_after, self.words = 0, ""
        self.timers: dict[str, float] = {}
        self.events: list[Event] = []

    # The application.

    def largest(self) -> int:
        """The longest message that the peer accepts and this side allows, as far as it is known."""
        return min(self.peer_largest or MIN_LARGEST_MESSAGE, self.largest_message)

    def send(self, text: bool, payload: bytes) -> int | str:
        """Accepts a message: the number of its last record; or why not: `closed`, `too large`, or `full`,
        which the event `writable` ends."""
        if self.state != "open":
            return "closed"
        largest = self.largest()
        if len(payload) > largest and self.peer_largest:
            return "too large"
        seq = None if len(payload) > largest else self.outgoing.accept(text, payload)
        if seq is None:
            self.refused = len(payload)
            return "full"
        return seq

    def next_batch(self, now: float) -> Batch | None:
        """The next messages that have arrived. The application takes the first one now, and the others as
        it removes them from the batch."""
        self.settle(now)
        batch = self.incoming.next_batch()
        if batch and not self.by_hand:
            self.timers.setdefault("acknowledgement delay", now + ACK_DELAY)
        return batch

    def settle(self, now: float) -> None:
        """Counts what the application has taken."""
        if self.incoming.settle() and not self.by_hand:
            self.acknowledge(now)

    def acknowledge(self, now: float, position: tuple[int, int] | None = None) -> None:
        """What was taken, up to this position if it is given, may be acknowledged."""
        if self.state == "over":
            return
        incoming = self.incoming
        incoming.ready = max(incoming.ready, min(position or incoming.taken, incoming.taken))
        if incoming.owes_ack():
            self.timers.setdefault("acknowledgement delay", now + ACK_DELAY)
        self.check_finished()

    def tell_end(self) -> Reason | None:
        """The end of what is received, told once."""
        if self.end_told or not (self.peer_close or self.state == "over"):
            return None
        self.end_told = True
        clean = self.reason is None or "closed" in self.reason
        return "closed" if clean else {"discontinuity": self.reason}

    def close(self, now: float, code: int, reason: str, within: float) -> None:
        """No more messages; the session ends once all are delivered, or after so many milliseconds."""
        if self.state == "open":
            self.state, self.close_frame = "closing", (within, code, reason)
            self.timers["close"] = now + within

    def abort(self, reason: str) -> None:
        self.end({"aborted": reason}, (APPLICATION, reason))

    # Connections.

    def attach(self, now: float) -> None:
        """The client has a new connection."""
        self.settle(now)
        self.new_link("hello owed", self.generation + 1)
        self.timers["handshake"] = now + HANDSHAKE

    def new_link(self, state: str, generation: int) -> None:
        self.link, self.generation = state, generation
        self.close_sent = self.end_sent = False
        self.pong = None

    def detach(self, now: float) -> None:
        """The connection is lost, or was given up."""
        if self.link == "detached":
            return
        self.new_link("detached", self.generation)
        self.timers.pop("handshake", None)
        self.abort_owed = None
        if self.epoch:
            self.timers.setdefault("expiry", now + self.life)
        self.rest_if_over()

    def resume(self, hello: Packet, next_token: bytes) -> int | None:
        """The server's steps 2 to 7 on HELLO: the number of a rejection, if it is one."""
        valid = [token for token in (self.confirmed, self.offered) if token]
        # Each is compared, so that the time tells nothing.
        if sum(hmac.compare_digest(hello["token"], token) for token in valid) == 0:
            return 3
        if self.state == "over":
            return 1
        if hello["generation"] <= self.generation:
            return 4
        try:
            self.outgoing.check_positions(hello["received"], hello["acked"])
        except Refused:
            return 6
        first = self.generation == 0
        self.confirmed, self.offered = hello["token"], next_token
        self.peer_largest = self.peer_largest or hello["largest_message"]
        self.new_link("welcome owed", hello["generation"])
        self.go_on(hello, first)
        return None

    def go_on(self, peer: Packet, first: bool) -> None:
        self.timers.pop("expiry", None)
        replayed = self.outgoing.go_on(peer["received"], peer["acked"], peer["credit"])
        # The order of what is reported: that it goes on comes before what follows from it,
        # for the client; the server has reported by then what `acked` brought.
        self.check_writable()
        event: Event = "opened" if first else {"resumed": self.generation, "replayed": replayed}
        self.events.append(event)
        self.check_finished()

    def welcome(self, packet: Packet) -> None:
        if packet["generation"] != self.generation or self.epoch not in (0, packet["epoch"]):
            raise Refused("INCONSISTENT", "another generation or epoch")
        self.outgoing.check_positions(packet["received"], packet["acked"])
        first = self.epoch == 0
        if first and packet["credit"] < MIN_WINDOW:
            raise Refused("INCONSISTENT", "the first credit")
        self.epoch = packet["epoch"]
        self.peer_largest = self.peer_largest or packet["largest_message"]
        self.life = min(self.own_life, packet["life"])
        self.confirmed, self.link = packet["token"], "attached"
        self.timers.pop("handshake", None)
        self.incoming.ack_now = True
        self.go_on(packet, first)

    # Packets that arrive.

    def ignores(self) -> bool:
        """Whether nothing that comes matters any more, readable or not."""
        return self.state == "over" or self.end_received

    def handle(self, now: float, data: bytes | None) -> None:
        """A packet on the current connection; None is a text message. Raises `Refused`: the caller calls
        `fail`. A rejection has its name, and the connection is over."""
        if self.ignores():
            return
        if data is None:
            raise malformed("a text message")
        if data[:1] == DATA_KIND and self.link == "attached" and len(data) <= MAX_PACKET:
            self.confirm()
            self.incoming.accept(data)
        else:
            self.handle_packet(now, decode(data))

    def confirm(self) -> None:
        """The first packet after WELCOME: section 9, tokens."""
        if self.offered:
            self.confirmed, self.offered = self.offered, None

    def handle_packet(self, now: float, packet: Packet) -> None:
        kind = packet["kind"]
        if isinstance(kind, int):
            return
        if self.link == "hello sent" and kind == "REJECT":
            raise self.rejected(now, packet)
        if self.link == "hello sent" and kind == "WELCOME":
            return self.welcome(packet)
        if self.link != "attached" or kind in ("HELLO", "WELCOME", "REJECT"):
            raise Refused("UNEXPECTED", f"{kind} when {self.link}")
        self.confirm()
        getattr(self, "on_" + kind.lower())(now, packet)

    def rejected(self, now: float, packet: Packet) -> Refused:
        number = packet["reason"]
        name: Any = REJECTIONS[number - 1] if 1 <= number <= 6 else number
        self.retry_after = packet["retry_after"] if name == "full" else 0
        if name != "full" or self.state == "finished":
            self.end({"rejected": name}, None)
        self.detach(now)
        return Refused(name, "REJECT")

    def on_ack(self, _: float, packet: Packet) -> None:
        self.outgoing.acknowledge(packet["seq"])
        self.check_writable()
        self.check_finished()

    def on_credit(self, _: float, packet: Packet) -> None:
        self.outgoing.credit = max(self.outgoing.credit, packet["offset"])

    def on_blocked(self, _: float, packet: Packet) -> None:
        self.incoming.blocked = min(packet["offset"], self.incoming.granted)
        self.incoming.grow()

    def on_ping(self, _: float, packet: Packet) -> None:
        self.pong = packet["number"]

    def on_pong(self, now: float, packet: Packet) -> None:
        if packet["number"] == self.ping_number and self.ping_sent is not None:
            self.events.append({"pong_after": now - self.ping_sent})
            self.ping_sent = None

    def on_goaway(self, _: float, packet: Packet) -> None:
        if not self.client:
            raise Refused("UNEXPECTED", "GOAWAY from a client")
        event = {"go_away_within": min(packet["window"], MAX_GO_AWAY), "reason": packet["reason"]}
        self.events.append(event)

    def on_close(self, now: float, packet: Packet) -> None:
        received = self.incoming.received[0]
        if packet["last"] > received:
            raise Refused("SEQUENCE_GAP", "records before CLOSE")
        if packet["last"] < received or self.incoming.incomplete:
            raise Refused("UNEXPECTED", "CLOSE before the end")
        self.peer_close, self.incoming.last = self.peer_close or packet, received
        if self.state == "open":
            deadline = min(packet["deadline"], MAX_CLOSE)
            frame = (deadline, packet["code"], packet["reason"])
            self.state, self.close_frame = "closing", frame
            self.timers["close"] = now + deadline
            self.events.append({"closing": packet["code"], "reason": packet["reason"]})
        self.check_finished()

    def on_end(self, _: float, __: Packet) -> None:
        if self.state != "finished":
            raise Refused("UNEXPECTED", "END before all is acknowledged")
        self.end_received = True
        self.rest_if_over()

    def on_abort(self, _: float, packet: Packet) -> None:
        self.words = packet["reason"]
        self.end({"aborted_by_peer": packet["code"]}, None)

    # What follows.

    def check_writable(self) -> None:
        if self.refused is None or not self.peer_largest:
            return
        parts = max(1, -(-self.refused // MAX_RECORD))
        if self.outgoing.kept() + self.refused + 64 * parts <= self.outgoing.replay:
            self.refused = None
            self.events.append("writable")

    def check_finished(self) -> None:
        if self.state != "closing" or not self.peer_close:
            return
        if self.incoming.ready[0] != self.peer_close["last"]:
            return
        if self.incoming.owes_ack():
            self.incoming.ack_now = True
        if self.outgoing.acked == self.outgoing.last:
            self.state = "finished"
            self.reason = {"closed": self.peer_close["code"], "reason": self.peer_close["reason"]}
            self.events.append({"ended": self.reason})
            self.timers.pop("acknowledgement delay", None)

    def end(self, reason: Reason, farewell: tuple[int, str] | None) -> None:
        if self.state == "over" or self.is_over():
            return
        if self.state != "finished":
            self.reason = reason
            self.events.append({"ended": reason})
        self.state = "over"
        self.timers.clear()
        if self.link in ("attached", "welcome owed"):
            self.abort_owed = farewell

    def fail(self, now: float, refused: Refused) -> None:
        """The peer broke the protocol: section 15."""
        if refused.code == "SEQUENCE_GAP":
            self.detach(now)
            return
        self.end({"protocol": refused.code}, (CODES.index(refused.code) + 1, str(refused)))

    def rest_if_over(self) -> None:
        if self.is_over():
            self.timers.clear()

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        if self.state == "finished":
            gone = self.link not in ("attached", "welcome owed")
            return self.end_received and (self.end_sent or gone)
        return self.state == "over" and self.abort_owed is None

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has to be called."""
        return min(self.timers.values(), default=None)

    def handle_timeout(self, now: float) -> None:
        self.settle(now)
        for timer, at in sorted(self.timers.items(), key=lambda item: item[1]):
            if at > now or self.timers.pop(timer, None) is None:
                continue
            if timer == "acknowledgement delay":
                self.incoming.ack_now = self.incoming.owes_ack()
                if self.incoming.current is not None:
                    self.timers[timer] = now + ACK_DELAY
            elif timer == "handshake":
                self.events.append({"handshake_timed_out": self.generation})
                self.detach(now)
            elif timer == "expiry":
                self.end("expired", None)
            else:
                late = (CLOSE_TIMEOUT, "the close was not completed in time")
                self.end("close timed out", None if self.state == "finished" else late)

    # What is sent next: section 13.

    def transmit(self, now: float) -> bytes | None:
        """The next packet to be sent, or nothing."""
        packet = self.next_packet(now)
        return packet if packet is None or isinstance(packet, bytes) else encode(packet)

    def next_packet(self, now: float) -> Packet | bytes | None:
        if self.link == "welcome owed" or (self.link == "hello owed" and self.state != "over"):
            return self.greeting()
        if self.link != "attached":
            return None
        if self.state == "over":
            return self.farewell()
        return self.next_sign(now) or self.next_of_stream()

    def greeting(self) -> Packet:
        packet: Packet = {"kind": "HELLO", "session_id": self.session_id, "token": self.confirmed}
        if self.client:
            self.link, acked = "hello sent", self.incoming.ready[0]
        else:
            self.link, acked = "attached", self.incoming.tell_ack()
            self.timers.pop("acknowledgement delay", None)
            packet = {"kind": "WELCOME", "token": self.offered or self.confirmed, "life": self.life}
        received, credit = self.incoming.received[0], self.incoming.renew()
        return packet | {
            "epoch": self.epoch,
            "generation": self.generation,
            "acked": acked,
            "received": received,
            "credit": credit,
            "largest_message": self.largest_message,
        }

    def farewell(self) -> Packet | None:
        if self.abort_owed is None:
            return None
        (code, reason), self.abort_owed = self.abort_owed, None
        words = reason.encode()[:MAX_REASON].decode(errors="ignore")
        return {"kind": "ABORT", "code": code, "reason": words}

    def next_sign(self, now: float) -> Packet | None:
        if self.pong is not None:
            number, self.pong = self.pong, None
            return {"kind": "PONG", "number": number}
        if self.ping_owed:
            self.ping_owed, self.ping_sent = False, now
            self.ping_number += 1
            return {"kind": "PING", "number": self.ping_number}
        if self.go_away:
            (window, reason), self.go_away = self.go_away, None
            return {"kind": "GOAWAY", "window": window, "reason": reason}
        return None

    def next_of_stream(self) -> Packet | bytes | None:
        incoming, outgoing = self.incoming, self.outgoing
        blocked = bool(outgoing.waiting) and not outgoing.is_covered()
        told = outgoing.blocked_told == outgoing.credit
        ending = self.next_of_ending()
        credit_due = incoming.is_credit_due()
        other = (outgoing.waiting and not (blocked and told)) or ending or credit_due
        if incoming.owes_ack() and (incoming.is_ack_due() or other):
            if incoming.current is None:
                self.timers.pop("acknowledgement delay", None)
            return {"kind": "ACK", "seq": incoming.tell_ack()}
        if credit_due:
            return {"kind": "CREDIT", "offset": incoming.renew()}
        if outgoing.waiting and not blocked:
            return outgoing.transmit()
        if blocked and not told:
            outgoing.blocked_told = outgoing.credit
            return {"kind": "BLOCKED", "offset": outgoing.credit}
        return self.tell_ending(ending)

    def next_of_ending(self) -> str | None:
        """CLOSE or END, if it is their turn once all is sent."""
        if self.close_frame and not self.outgoing.waiting and not self.close_sent:
            return "CLOSE"
        return "END" if self.state == "finished" and not self.end_sent else None

    def tell_ending(self, kind: str | None) -> Packet | None:
        if kind == "CLOSE" and self.close_frame:
            self.close_sent = True
            deadline, code, reason = self.close_frame
            last = self.outgoing.last
            return {"kind": kind, "last": last, "deadline": deadline, "code": code, "reason": reason}
        if kind == "END" and not self.outgoing.waiting:
            self.end_sent = True
            self.rest_if_over()
            return {"kind": kind}
        return None
