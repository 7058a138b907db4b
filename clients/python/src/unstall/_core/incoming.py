"""What one side of a session receives: SPEC.md, sections 4 to 7."""

from .packet import Refused, cost, malformed

ACK_COST, ACK_RECORDS = 131_072, 1_024


class Incoming:
    """What this side receives: sections 4 to 7."""

    def __init__(self, window, largest_window, largest_message):
        self.window, self.largest_window = window, largest_window
        self.largest_message = largest_message
        #: Positions: the number of a record, and where it ends as an offset.
        self.received = self.taken = self.ready = self.told = (0, 0)
        self.parts, self.incomplete = [], 0
        self.messages = []
        #: The peer's last record, once CLOSE has named it.
        self.last = None
        self.granted = window
        self.blocked = None
        self.ack_now = False

    def accept(self, first, records):
        seq, offset = self.received
        if first > seq + 1:
            raise Refused("SEQUENCE_GAP", f"{first} after {seq}")
        for record in records[seq + 1 - first:]:
            seq, offset = seq + 1, offset + cost(record)
            if seq >= 1 << 64:
                raise Refused("SEQUENCE_EXHAUSTED", "the numbers end")
            if self.last is not None:
                raise Refused("UNEXPECTED", "records after CLOSE")
            if offset > self.granted:
                raise Refused("CREDIT_EXCEEDED", f"{offset} of {self.granted}")
            self.received = (seq, offset)
            self.accept_record(record)

    def accept_record(self, record):
        if self.parts and self.parts[0].text != record.text:
            raise malformed("a message that changes its kind")
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
        self.messages.append((record.text, payload, self.received))
        self.parts, self.incomplete = [], 0

    def take(self):
        """The application takes all whole messages."""
        messages, self.messages = self.messages, []
        if messages:
            self.taken = messages[-1][2]
        self.grow()
        return [(text, payload) for text, payload, _ in messages]

    def owes_ack(self):
        return self.ready > self.told or self.ack_now

    def is_ack_due(self):
        records, size = (ready - told for ready, told in zip(self.ready, self.told))
        enough = size >= ACK_COST or records >= ACK_RECORDS
        return self.ack_now or enough

    def tell_ack(self):
        self.told, self.ack_now = self.ready, False
        return self.ready[0]

    def target(self):
        return self.taken[1] + self.incomplete + self.window

    def is_credit_due(self):
        return self.target() - self.granted >= self.window // 2

    def renew(self):
        self.granted = max(self.granted, self.target())
        return self.granted

    def grow(self):
        if self.blocked is None:
            return
        if self.received[1] > self.blocked:
            self.blocked = None
        elif not self.messages and self.taken[1] + self.incomplete == self.received[1]:
            self.blocked = None
            self.window = min(2 * self.window, self.largest_window)
