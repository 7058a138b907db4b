"""What one side of a session receives: SPEC.md, sections 4 to 7."""

from __future__ import annotations

from collections import deque

from .packet import MAX_RECORD, RECORD_OVERHEAD, Record, Refused, cost, malformed, read_records

ACK_COST, ACK_RECORDS = 131_072, 1_024
#: The size of a packet of data before its first record.
EMPTY = 9


class Batch:
    """Whole messages of one packet. The application takes them from the end of the list: the first message
    is the last item."""

    __slots__ = ("count", "end", "last", "messages", "start")

    def __init__(self, messages: list[str | bytes], start: tuple[int, int], end: tuple[int, int]) -> None:
        self.messages, self.count = messages, len(messages)
        #: The position before the first message.
        self.start = start
        #: The number of the last record, and where it ends as an offset.
        self.last, self.end = end

    def position(self) -> tuple[int, int]:
        """The record up to which the application has taken the messages, and where it ends."""
        left = self.messages
        if len(left) == self.count:
            return self.start
        return self.last - len(left), self.end - sum(map(wire_length, left)) - RECORD_OVERHEAD * len(left)


def wire_length(message: str | bytes) -> int:
    if isinstance(message, str) and not message.isascii():
        return len(message.encode())
    return len(message)


def read_whole(data: bytes) -> tuple[list[str | bytes], int] | None:
    """The messages of a packet of data and the bytes of their payloads, if each is one whole record. None:
    the exact reading has to decide."""
    messages: list[str | bytes] = []
    append = messages.append
    at, end, size = EMPTY, len(data), 0
    try:
        while at < end:
            word = data[at]
            if word < 0x40:
                at += 1
            elif word < 0x80:
                word = (word & 0x3F) << 8 | data[at + 1]
                at += 2
            elif word < 0xC0:
                word = int.from_bytes(data[at : at + 4], "big") & 0x3FFF_FFFF
                at += 4
                if word >> 2 > MAX_RECORD:
                    return None
            else:
                return None
            if word & 2:
                return None
            length = word >> 2
            stop = at + length
            size += length
            append(str(data[at:stop], "utf-8") if word & 1 else data[at:stop])
            at = stop
    except (IndexError, UnicodeDecodeError):
        return None
    return (messages, size) if at == end and messages else None


class Incoming:
    """What has arrived in order, and what of it the application has taken."""

    def __init__(self, window: int, largest_window: int, largest_message: int) -> None:
        self.window, self.largest_window = window, largest_window
        self.largest_message = largest_message
        #: Positions: the number of a record, and where it ends as an offset. `ready` may be acknowledged,
        #: `told` is acknowledged.
        self.received = self.taken = self.ready = self.told = (0, 0)
        #: The message whose last record has not arrived: its bytes, its kind, and the cost of its records.
        self.partial, self.partial_is_text, self.incomplete = bytearray(), False, 0
        #: The position before the first record of that message.
        self.whole = (0, 0)
        self.batches: deque[Batch] = deque()
        #: The batch that the application is taking.
        self.current: Batch | None = None
        #: The peer's last record, once CLOSE has named it.
        self.last: int | None = None
        self.granted = window
        self.blocked: int | None = None
        self.ack_now = False

    # Packets that arrive.

    def accept(self, data: bytes) -> None:
        """A packet of data."""
        if not self._accept_whole(data):
            self._accept_exactly(data)

    def _accept_whole(self, data: bytes) -> bool:
        """The usual packet: the next one in order, and of whole messages only."""
        seq, offset = self.received
        first = int.from_bytes(data[1:EMPTY], "big")
        if first != seq + 1 or self.incomplete or self.last is not None or len(data) < EMPTY:
            return False
        whole = read_whole(data)
        if whole is None:
            return False
        messages, size = whole
        count = len(messages)
        end = offset + size + RECORD_OVERHEAD * count
        fits = size <= self.largest_message and end <= self.granted
        if not fits or seq + count >= 1 << 64:
            return False
        messages.reverse()
        start, self.received = self.received, (seq + count, end)
        self.batches.append(Batch(messages, start, self.received))
        return True

    def _accept_exactly(self, data: bytes) -> None:
        """Every packet, record by record, with the errors of the peer."""
        if len(data) < EMPTY:
            raise malformed("cut short")
        first = int.from_bytes(data[1:EMPTY], "big")
        if first == 0:
            raise malformed("DATA that begins with 0")
        records = read_records(data[EMPTY:])
        seq, offset = self.received
        if first > seq + 1:
            raise Refused("SEQUENCE_GAP", f"{first} after {seq}")
        for record in records[seq + 1 - first :]:
            seq, offset = seq + 1, offset + cost(record)
            if seq >= 1 << 64:
                raise Refused("SEQUENCE_EXHAUSTED", "the numbers end")
            if self.last is not None:
                raise Refused("UNEXPECTED", "records after CLOSE")
            if offset > self.granted:
                raise Refused("CREDIT_EXCEEDED", f"{offset} of {self.granted}")
            before, self.received = self.received, (seq, offset)
            self._accept_record(record, before)

    def _accept_record(self, record: Record, before: tuple[int, int]) -> None:
        if self.incomplete and self.partial_is_text != record.text:
            raise malformed("a message that changes its kind")
        if not self.incomplete:
            self.whole = before
        self.partial += record.payload
        self.partial_is_text = record.text
        self.incomplete += cost(record)
        if len(self.partial) > self.largest_message:
            raise Refused("MESSAGE_TOO_LARGE", str(len(self.partial)))
        if record.continues:
            return
        message: str | bytes = bytes(self.partial)
        if record.text:
            try:
                message = self.partial.decode()
            except UnicodeDecodeError:
                raise Refused("INVALID_TEXT", "not UTF-8") from None
        self.batches.append(Batch([message], self.whole, self.received))
        self.partial, self.incomplete = bytearray(), 0

    # What the application takes.

    def next_batch(self) -> Batch | None:
        """The application takes its first message at once, and the others when it likes."""
        self.settle()
        if not self.batches:
            return None
        self.current = self.batches.popleft()
        return self.current

    def settle(self) -> bool:
        """Counts what the application has taken: whether that is more than before."""
        before, batch = self.taken, self.current
        if batch is not None:
            self.taken = batch.position()
            if not batch.messages:
                self.current = None
        self.grow()
        return self.taken > before

    def owes_ack(self) -> bool:
        return self.ready > self.told or self.ack_now

    def is_ack_due(self) -> bool:
        records, size = self.ready[0] - self.told[0], self.ready[1] - self.told[1]
        return self.ack_now or size >= ACK_COST or records >= ACK_RECORDS

    def tell_ack(self) -> int:
        self.told, self.ack_now = self.ready, False
        return self.ready[0]

    # Credit.

    def target(self) -> int:
        return self.taken[1] + self.incomplete + self.window

    def is_credit_due(self) -> bool:
        return self.target() - self.granted >= self.window // 2

    def renew(self) -> int:
        self.granted = max(self.granted, self.target())
        return self.granted

    def grow(self) -> None:
        if self.blocked is None:
            return
        if self.received[1] > self.blocked:
            self.blocked = None
        elif self.taken[1] + self.incomplete == self.received[1]:
            self.blocked = None
            self.window = min(2 * self.window, self.largest_window)
