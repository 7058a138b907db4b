"""What both sides of a connection of topics have: ABORT, PING, and how a connection ends."""

from __future__ import annotations

from typing import Any

from ..packet import MAX_REASON, Refused, malformed
from .events import Aborted, Pong
from .packet import NAMES, SENDERS, decode
from .records import Record

CODES = {
    "MALFORMED": 1,
    "UNKNOWN_KIND": 2,
    "UNEXPECTED": 3,
    "SEQUENCE_GAP": 4,
    "CREDIT_EXCEEDED": 6,
    "MESSAGE_TOO_LARGE": 8,
    "INVALID_TEXT": 9,
    "INCONSISTENT": 10,
    "APPLICATION": 12,
}

Packet = dict[str, Any]


class Endpoint:
    """One side. A subclass says what it does with a packet, and what it sends."""

    #: Who sends what arrives here.
    sender = ""

    def __init__(self) -> None:
        self.state = "hello"
        #: A connection is `closed` with this code of WebSocket.
        self.close_code: int | None = None
        self.events: list[Any] = []
        self.abort_owed: tuple[int, str] | None = None
        self.pong: int | None = None
        self.pings, self.ping_owed = 0, False
        #: When the PING that is not answered was sent.
        self.ping_at: float | None = None

    def within(self, packet: Packet) -> Any:
        raise NotImplementedError

    def check_state(self, kind: str) -> None:
        raise NotImplementedError

    def handle_packet(self, now: float, packet: Packet) -> None:
        raise NotImplementedError

    def handle(self, now: float, data: bytes | None) -> str | None:
        """One packet; no data is a text message. Gives the error's name, if it is one. The connection
        is to be closed with `close_code` then, after what `transmit` still gives."""
        if self.state in ("closed", "rejected"):
            return None
        try:
            if data is None:
                raise malformed("a text message")
            self.check_sender(data)
            packet = decode(data, self.within)
            if not isinstance(packet["kind"], int):
                self.check_state(packet["kind"])
                self.handle_packet(now, packet)
            elif self.state == "hello":
                raise Refused("UNEXPECTED", "not HELLO")
        except Refused as refused:
            self.fail(refused)
            return refused.code
        return None

    def check_sender(self, data: bytes) -> None:
        name = NAMES.get(data[0]) if data else None
        if name and SENDERS[name] not in (self.sender, "both"):
            raise Refused("UNEXPECTED", f"{name} from the {self.sender}")

    def fail(self, refused: Refused) -> None:
        # Section 6: before HELLO there is no ABORT.
        abort = (CODES[refused.code], str(refused)) if self.state != "hello" else None
        self.end(1002, abort)

    def end(self, code: int, abort: tuple[int, str] | None = None) -> None:
        self.state, self.close_code, self.abort_owed = "closed", code, abort

    def abort(self, text: str) -> None:
        """Gives the connection up, and tells the peer why."""
        self.end(1000, (CODES["APPLICATION"], text))

    def ping(self) -> None:
        """Sends PING. An event tells when it is answered."""
        self.ping_owed = True

    def handle_sign(self, now: float, packet: Packet) -> bool:
        """PING, PONG and ABORT: sections 11 and 13. Whether it was one."""
        kind = packet["kind"]
        if kind == "PING":
            self.pong = packet["number"]
        elif kind == "PONG":
            if self.ping_at is not None and packet["number"] == self.pings:
                self.events.append(Pong(now - self.ping_at))
                self.ping_at = None
        elif kind == "ABORT":
            self.events.append(Aborted(packet["code"], packet["text"]))
            self.end(1000)
        else:
            return False
        return True

    def farewell(self) -> Packet | None:
        """ABORT, if it is owed."""
        if not self.abort_owed:
            return None
        (code, text), self.abort_owed = self.abort_owed, None
        cut = text.encode()[:MAX_REASON].decode(errors="ignore")
        return {"kind": "ABORT", "code": code, "text": cut}

    def next_sign(self, now: float) -> Packet | None:
        if self.pong is not None:
            number, self.pong = self.pong, None
            return {"kind": "PONG", "number": number}
        if self.ping_owed:
            self.ping_owed, self.ping_at = False, now
            self.pings += 1
            return {"kind": "PING", "number": self.pings}
        return None


__all__ = ["CODES", "Endpoint", "Record"]
