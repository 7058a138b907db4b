"""A session of unstall.v1, written from SPEC.md alone, to show that this can be done. It is made to
be read and to check the vectors, not to be fast. All times are milliseconds."""

from .incoming import Incoming
from .outgoing import Outgoing
from .packet import MAX_REASON, MAX_RECORD, MIN_LARGEST_MESSAGE, Refused, encode

MIN_WINDOW = 262_144
ACK_DELAY = 20
HANDSHAKE = 10_000
CLOSE_TIMEOUT, APPLICATION = 11, 12
#: Section 14: what a peer announces is cut.
MAX_CLOSE, MAX_GO_AWAY = 300_000, 3_600_000
CODES = ["MALFORMED", "UNKNOWN_KIND", "UNEXPECTED", "SEQUENCE_GAP", "SEQUENCE_EXHAUSTED",
         "CREDIT_EXCEEDED", "INVALID_ACK", "MESSAGE_TOO_LARGE", "INVALID_TEXT", "INCONSISTENT"]
REJECTIONS = ["expired", "unknown", "not yours", "superseded", "full", "inconsistent"]


class Session:
    """Both sides of it: sections 6 and 9 to 15."""

    def __init__(self, client, options, session_id, token, epoch=0):
        window = options.get("window", 1 << 20)
        self.largest_message = options.get("largest_message", 8 << 20)
        self.incoming = Incoming(window, options.get("largest_window", 8 << 20),
                                 self.largest_message)
        self.outgoing = Outgoing(options.get("replay", 16 << 20))
        self.own_life = self.life = options.get("expiry", 120_000)
        self.by_hand = options.get("acknowledge_by_hand", False)
        self.client, self.session_id, self.epoch = client, session_id, epoch
        self.confirmed, self.offered = token, None
        self.peer_largest = None
        #: Section 13.
        self.link, self.generation = "detached", 0
        self.state, self.reason = "open", None
        self.close_frame = self.peer_close = None
        self.close_sent = self.end_sent = self.end_received = self.end_told = False
        self.pong = self.ping = self.go_away = self.abort_owed = None
        self.ping_number, self.ping_sent, self.ping_owed = 0, None, False
        self.refused = None
        self.timers, self.events = {}, []

    # The application.

    def send(self, text, payload):
        if self.state != "open":
            return "closed"
        largest = min(self.peer_largest or MIN_LARGEST_MESSAGE, self.largest_message)
        if len(payload) > largest and self.peer_largest:
            return "too large"
        seq = None if len(payload) > largest else self.outgoing.accept(text, payload)
        if seq is None:
            self.refused = len(payload)
            return "full"
        return seq

    def take(self, now):
        messages = self.incoming.take()
        if messages and not self.by_hand:
            self.acknowledge(now)
        return messages, self.tell_end()

    def acknowledge(self, now):
        """Everything that was taken may be acknowledged."""
        if self.state == "over":
            return
        self.incoming.ready = self.incoming.taken
        if self.incoming.owes_ack():
            self.timers.setdefault("acknowledgement delay", now + ACK_DELAY)
        self.check_finished()

    def tell_end(self):
        """The end of what is received, told once."""
        if self.end_told or not (self.peer_close or self.state == "over"):
            return None
        self.end_told = True
        clean = self.reason is None or "closed" in self.reason
        return "closed" if clean else {"discontinuity": self.reason}

    def close(self, now, code, reason, within):
        if self.state == "open":
            self.state, self.close_frame = "closing", (within, code, reason)
            self.timers["close"] = now + within

    def abort(self, reason):
        self.end({"aborted": reason}, (APPLICATION, reason))

    # Connections.

    def attach(self, now):
        self.new_link("hello owed", self.generation + 1)
        self.timers["handshake"] = now + HANDSHAKE

    def new_link(self, state, generation):
        self.link, self.generation = state, generation
        self.close_sent = self.end_sent = False
        self.pong = None

    def detach(self, now):
        if self.link == "detached":
            return
        self.new_link("detached", self.generation)
        self.timers.pop("handshake", None)
        self.abort_owed = None
        if self.epoch:
            self.timers.setdefault("expiry", now + self.life)
        self.rest_if_over()

    def resume(self, hello, next_token):
        """The server's steps 2 to 7 on HELLO: the number of a rejection, if it is one."""
        if hello["token"] not in (self.confirmed, self.offered):
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

    def go_on(self, peer, first):
        self.timers.pop("expiry", None)
        replayed = self.outgoing.go_on(peer["received"], peer["acked"], peer["credit"])
        # The order of what is reported: that it goes on comes before what follows from it,
        # for the client; the server has reported by then what `acked` brought.
        self.check_writable()
        event = "opened" if first else {"resumed": self.generation, "replayed": replayed}
        self.events.append(event)
        self.check_finished()

    def welcome(self, packet):
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

    def ignores(self):
        """Whether nothing that comes matters any more, readable or not."""
        return self.state == "over" or self.end_received

    def handle(self, now, packet):
        """A decoded packet on the current connection. Raises `Refused`; a rejection has its
        name."""
        kind = packet["kind"]
        if isinstance(kind, int):
            return
        if self.link == "hello sent" and kind == "REJECT":
            raise self.rejected(now, packet["reason"])
        if self.link == "hello sent" and kind == "WELCOME":
            return self.welcome(packet)
        if self.link != "attached" or kind in ("HELLO", "WELCOME", "REJECT"):
            raise Refused("UNEXPECTED", f"{kind} when {self.link}")
        if self.offered:
            self.confirmed, self.offered = self.offered, None
        getattr(self, "on_" + kind.lower())(now, packet)

    def rejected(self, now, number):
        name = REJECTIONS[number - 1] if 1 <= number <= 6 else number
        if name != "full" or self.state == "finished":
            self.end({"rejected": name}, None)
        self.detach(now)
        return Refused(name, "REJECT")

    def on_data(self, _, packet):
        self.incoming.accept(packet["first"], packet["records"])

    def on_ack(self, _, packet):
        self.outgoing.acknowledge(packet["seq"])
        self.check_writable()
        self.check_finished()

    def on_credit(self, _, packet):
        self.outgoing.credit = max(self.outgoing.credit, packet["offset"])

    def on_blocked(self, _, packet):
        self.incoming.blocked = min(packet["offset"], self.incoming.granted)
        self.incoming.grow()

    def on_ping(self, _, packet):
        self.pong = packet["number"]

    def on_pong(self, now, packet):
        if packet["number"] == self.ping_number and self.ping_sent is not None:
            self.events.append({"pong_after": now - self.ping_sent})
            self.ping_sent = None

    def on_goaway(self, _, packet):
        if not self.client:
            raise Refused("UNEXPECTED", "GOAWAY from a client")
        event = {"go_away_within": min(packet["window"], MAX_GO_AWAY), "reason": packet["reason"]}
        self.events.append(event)

    def on_close(self, now, packet):
        received = self.incoming.received[0]
        if packet["last"] > received:
            raise Refused("SEQUENCE_GAP", "records before CLOSE")
        if packet["last"] < received or self.incoming.parts:
            raise Refused("UNEXPECTED", "CLOSE before the end")
        self.peer_close, self.incoming.last = self.peer_close or packet, received
        if self.state == "open":
            deadline = min(packet["deadline"], MAX_CLOSE)
            frame = (deadline, packet["code"], packet["reason"])
            self.state, self.close_frame = "closing", frame
            self.timers["close"] = now + deadline
            self.events.append({"closing": packet["code"], "reason": packet["reason"]})
        self.check_finished()

    def on_end(self, _, __):
        if self.state != "finished":
            raise Refused("UNEXPECTED", "END before all is acknowledged")
        self.end_received = True
        self.rest_if_over()

    def on_abort(self, _, packet):
        self.end({"aborted_by_peer": packet["code"]}, None)

    # What follows.

    def check_writable(self):
        if self.refused is None or not self.peer_largest:
            return
        parts = max(1, -(-self.refused // MAX_RECORD))
        if self.outgoing.kept() + self.refused + 64 * parts <= self.outgoing.replay:
            self.refused = None
            self.events.append("writable")

    def check_finished(self):
        if self.state != "closing" or not self.peer_close:
            return
        if self.incoming.ready[0] != self.peer_close["last"]:
            return
        if self.incoming.owes_ack():
            self.incoming.ack_now = True
        if self.outgoing.acked == len(self.outgoing.records):
            self.state = "finished"
            self.reason = {"closed": self.peer_close["code"], "reason": self.peer_close["reason"]}
            self.events.append({"ended": self.reason})
            self.timers.pop("acknowledgement delay", None)

    def end(self, reason, farewell):
        if self.state == "over" or self.is_over():
            return
        if self.state != "finished":
            self.reason = reason
            self.events.append({"ended": reason})
        self.state = "over"
        self.timers.clear()
        if self.link in ("attached", "welcome owed"):
            self.abort_owed = farewell

    def fail(self, now, refused):
        """The peer broke the protocol: section 15."""
        if refused.code == "SEQUENCE_GAP":
            return self.detach(now)
        self.end({"protocol": refused.code}, (CODES.index(refused.code) + 1, str(refused)))

    def rest_if_over(self):
        if self.is_over():
            self.timers.clear()

    def is_over(self):
        """Whether nothing is left to do."""
        if self.state == "finished":
            gone = self.link not in ("attached", "welcome owed")
            return self.end_received and (self.end_sent or gone)
        return self.state == "over" and self.abort_owed is None

    def handle_timeout(self, now):
        for timer, at in sorted(self.timers.items(), key=lambda item: item[1]):
            if at > now or self.timers.pop(timer, None) is None:
                continue
            if timer == "acknowledgement delay":
                self.incoming.ack_now = self.incoming.owes_ack()
            elif timer == "handshake":
                self.events.append({"handshake_timed_out": self.generation})
                self.detach(now)
            elif timer == "expiry":
                self.end("expired", None)
            else:
                late = (CLOSE_TIMEOUT, "the close was not completed in time")
                self.end("close timed out", None if self.state == "finished" else late)

    # What is sent next: section 13.

    def transmit(self, now):
        packet = self.next_packet(now)
        return packet and encode(packet)

    def next_packet(self, now):
        if self.link == "welcome owed" or (self.link == "hello owed" and self.state != "over"):
            return self.greeting()
        if self.link != "attached":
            return None
        if self.state == "over":
            return self.farewell()
        return self.next_sign(now) or self.next_of_stream()

    def greeting(self):
        packet = {"kind": "HELLO", "session_id": self.session_id, "token": self.confirmed}
        if self.client:
            self.link, acked = "hello sent", self.incoming.ready[0]
        else:
            self.link, acked = "attached", self.incoming.tell_ack()
            self.timers.pop("acknowledgement delay", None)
            packet = {"kind": "WELCOME", "token": self.offered or self.confirmed,
                      "life": self.life}
        received, credit = self.incoming.received[0], self.incoming.renew()
        return packet | {"epoch": self.epoch, "generation": self.generation, "acked": acked,
                         "received": received, "credit": credit,
                         "largest_message": self.largest_message}

    def farewell(self):
        if self.abort_owed is None:
            return None
        (code, reason), self.abort_owed = self.abort_owed, None
        words = reason.encode()[:MAX_REASON].decode(errors="ignore")
        return {"kind": "ABORT", "code": code, "reason": words}

    def next_sign(self, now):
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

    def next_of_stream(self):
        incoming = self.incoming
        records = self.outgoing.next_records()
        closing = self.close_frame and not records
        send_close = closing and not self.close_sent
        send_end = self.state == "finished" and not self.end_sent
        blocked = records and not self.outgoing.is_covered(records)
        held = blocked and self.outgoing.blocked_told == self.outgoing.credit
        other = (records and not held) or send_close or send_end or incoming.is_credit_due()
        if incoming.owes_ack() and (incoming.is_ack_due() or other):
            self.timers.pop("acknowledgement delay", None)
            return {"kind": "ACK", "seq": incoming.tell_ack()}
        if incoming.is_credit_due():
            return {"kind": "CREDIT", "offset": incoming.renew()}
        if records and not blocked:
            return self.outgoing.transmit(records)
        if blocked and not held:
            self.outgoing.blocked_told = self.outgoing.credit
            return {"kind": "BLOCKED", "offset": self.outgoing.credit}
        if send_close:
            self.close_sent = True
            deadline, code, reason = self.close_frame
            return {"kind": "CLOSE", "last": len(self.outgoing.records), "deadline": deadline,
                    "code": code, "reason": reason}
        if send_end:
            self.end_sent = True
            self.rest_if_over()
            return {"kind": "END"}
        return None
