"""What one side of a session sends: SPEC.md, sections 4, 5, 7 and 8."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .packet import HEADS, MAX_RECORD, RECORD_OVERHEAD, Refused, head_of

#: A packet takes records up to this size, so that the fixed cost of a frame no longer shows.
FILL = 32_768
MAX_PACKET_COST = 131_072
#: The size of a packet of data before its first record.
EMPTY = 9


class Parcel:
    """The records of one packet. A record that continues is alone in its packet, because it is larger
    than what a packet is filled to."""

    __slots__ = ("continues", "cost", "first", "is_text", "parts", "size", "start")

    def __init__(self, first: int, start: int, is_text: bool, continues: bool) -> None:
        #: The number of the first record, and the offset at which it begins.
        self.first, self.start = first, start
        #: The head and the payload of each record, in turns.
        self.parts: list[bytes] = []
        self.size, self.cost = EMPTY, 0
        self.is_text, self.continues = is_text, continues

    @property
    def last(self) -> int:
        return self.first + len(self.parts) // 2 - 1

    def encoded(self) -> bytes:
        return b"".join((b"\x10", self.first.to_bytes(8, "big"), *self.parts))

    def split_off(self, seq: int) -> Parcel:
        """The records up to `seq`. This parcel keeps the others."""
        count = seq + 1 - self.first
        taken = Parcel(self.first, self.start, self.is_text, False)
        taken.parts = self.parts[: 2 * count]
        taken.cost = sum(map(len, taken.parts[1::2])) + RECORD_OVERHEAD * count
        del self.parts[: 2 * count]
        self.first, self.start, self.cost = seq + 1, self.start + taken.cost, self.cost - taken.cost
        return taken


class Outgoing:
    """What this side has accepted: it is kept until it is acknowledged."""

    def __init__(self, replay: int) -> None:
        self.replay = replay
        #: Packets that this connection was given or that the peer has, and packets that it gets next.
        self.on_way: deque[Parcel] = deque()
        self.waiting: deque[Parcel] = deque()
        #: The last packet, as long as it takes more records. It was never sent.
        self.open: Parcel | None = None
        #: The numbers of the last record accepted, sent ever, sent on this connection, acknowledged.
        self.last = self.sent = self.on_connection = self.acked = 0
        #: Offsets: where the accepted records end, those on this connection, the acknowledged ones.
        self.end = self.connection_end = self.acked_end = 0
        self.credit = 0
        self.blocked_told: int | None = None

    # The application.

    def accept(self, is_text: bool, payload: bytes) -> int | None:
        """The number of the message's last record, or nothing if there is no room."""
        length = len(payload)
        if length > MAX_RECORD:
            return self._accept_long(is_text, payload)
        cost = length + RECORD_OVERHEAD
        if self.end - self.acked_end + cost > self.replay:
            return None
        head = HEADS[is_text][length] if length < 4096 else head_of(is_text, False, length)
        self._add(is_text, False, head, payload, cost)
        return self.last

    def _accept_long(self, is_text: bool, payload: bytes) -> int | None:
        count = -(-len(payload) // MAX_RECORD)
        if self.kept() + len(payload) + RECORD_OVERHEAD * count > self.replay:
            return None
        for at in range(0, len(payload), MAX_RECORD):
            part = payload[at : at + MAX_RECORD]
            continues = at + MAX_RECORD < len(payload)
            head = head_of(is_text, continues, len(part))
            self._add(is_text, continues, head, part, len(part) + RECORD_OVERHEAD)
        return self.last

    def _add(self, is_text: bool, continues: bool, head: bytes, payload: bytes, cost: int) -> None:
        parcel, size = self.open, len(head) + len(payload)
        if parcel is None or parcel.size + size > FILL or parcel.cost + cost > MAX_PACKET_COST:
            parcel = self.open = Parcel(self.last + 1, self.end, is_text, continues)
            self.waiting.append(parcel)
        parcel.parts += (head, payload)
        parcel.size += size
        parcel.cost += cost
        self.last += 1
        self.end += cost

    def kept(self) -> int:
        """What is accepted and not acknowledged, as a cost."""
        return self.end - self.acked_end

    def unsent(self) -> int:
        """What this connection was not given, as a cost."""
        return self.end - self.connection_end

    def undelivered(self) -> Iterator[tuple[bool, bytes, bool]]:
        """Every message that is not acknowledged: whether it is text, its bytes, whether it was sent."""
        parts: list[bytes] = []
        for parcel in (*self.on_way, *self.waiting):
            for seq, (head, payload) in enumerate(
                zip(parcel.parts[::2], parcel.parts[1::2], strict=True), parcel.first
            ):
                parts.append(payload)
                if not parcel.continues:
                    yield bool(head[-1] & 1), b"".join(parts), seq <= self.sent
                    parts = []

    # Sending.

    def is_covered(self) -> bool:
        """Whether credit covers the next packet."""
        parcel = self.waiting[0]
        return parcel.start + parcel.cost <= self.credit

    def transmit(self) -> bytes:
        """The next packet."""
        parcel = self.waiting.popleft()
        if parcel is self.open:
            self.open = None
        self.on_way.append(parcel)
        self.on_connection, self.connection_end = parcel.last, parcel.start + parcel.cost
        self.sent = max(self.sent, self.on_connection)
        return parcel.encoded()

    # What the peer says.

    def acknowledge(self, seq: int) -> None:
        if seq <= self.acked:
            return
        if seq > self.on_connection or self._continues(seq):
            raise Refused("INVALID_ACK", f"{seq} of {self.on_connection}")
        parcel = self.on_way[0]
        while parcel.last < seq:
            self.on_way.popleft()
            parcel = self.on_way[0]
        if parcel.last == seq:
            self.on_way.popleft()
            self.acked_end = parcel.start + parcel.cost
        else:
            parcel.split_off(seq)
            self.acked_end = parcel.start
        self.acked = seq

    def _continues(self, seq: int) -> bool:
        """Whether the message of this record, which is not acknowledged, goes on behind it."""
        for parcel in (self.on_way, self.waiting):
            for candidate in parcel:
                if seq <= candidate.last:
                    return candidate.continues
        return False

    def check_positions(self, received: int, acked: int) -> None:
        if not self.acked <= received <= self.sent or acked > received:
            raise Refused("INCONSISTENT", f"received {received}, acked {acked}")
        if acked > self.acked and self._continues(acked):
            raise Refused("INVALID_ACK", "within a message")

    def go_on(self, received: int, acked: int, credit: int) -> int:
        """After the resume exchange: how many records are sent again."""
        parcels = [*self.on_way, *self.waiting]
        self.on_way.clear()
        self.waiting.clear()
        self.connection_end = self.acked_end
        for parcel in parcels:
            if parcel.first <= received < parcel.last:
                self.on_way.append(parcel.split_off(received))
                self.connection_end = parcel.start
            if parcel.last <= received:
                self.on_way.append(parcel)
                self.connection_end = parcel.start + parcel.cost
            else:
                self.waiting.append(parcel)
        self.on_connection = received
        self.blocked_told = None
        self.credit = max(self.credit, credit)
        self.acknowledge(acked)
        return self.sent - received
