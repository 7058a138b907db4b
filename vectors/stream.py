"""One direction of a session each: what this side sends, and what it receives (SPEC.md, sections 4
to 8)."""

from packet import MAX_RECORD, Record, Refused, cost, malformed, write_record

FILL = 32_768
MAX_PACKET_COST = 131_072
ACK_COST, ACK_RECORDS = 131_072, 1_024


class Outgoing:
    """What this side sends: sections 4, 5, 7 and 8."""

    def __init__(self, replay):
        self.replay = replay
        self.records = []
        #: Where each record ends as an offset; the first one begins at 0.
        self.ends = [0]
        self.acked = self.sent = self.on_connection = 0
        #: The last record of each packet that was sent: a replay has the same packets.
        self.packet_ends = set()
        self.credit = 0
        self.blocked_told = None

    def accept(self, text, payload):
        """The number of the message's last record, or nothing if there is no room."""
        starts = range(0, len(payload), MAX_RECORD) or [0]
        records = [Record(text, at + MAX_RECORD < len(payload), payload[at:at + MAX_RECORD])
                   for at in starts]
        if self.kept() + sum(map(cost, records)) > self.replay:
            return None
        for record in records:
            self.records.append(record)
            self.ends.append(self.ends[-1] + cost(record))
        return len(self.records)

    def kept(self):
        return self.ends[-1] - self.ends[self.acked]

    def next_records(self):
        """The records of the next packet."""
        records, size = [], 9
        for record in self.records[self.on_connection:]:
            if records and self.on_connection + len(records) in self.packet_ends:
                break
            size += len(write_record(record))
            if records and (size > FILL or sum(map(cost, records + [record])) > MAX_PACKET_COST):
                break
            records.append(record)
        return records

    def is_covered(self, records):
        return self.ends[self.on_connection + len(records)] <= self.credit

    def transmit(self, records):
        first = self.on_connection + 1
        self.on_connection += len(records)
        self.sent = max(self.sent, self.on_connection)
        self.packet_ends.add(self.on_connection)
        return {"kind": "DATA", "first": first, "records": records}

    def acknowledge(self, seq):
        if seq <= self.acked:
            return
        if seq > self.on_connection or self.records[seq - 1].continues:
            raise Refused("INVALID_ACK", f"{seq} of {self.on_connection}")
        self.acked = seq

    def check_positions(self, received, acked):
        if not self.acked <= received <= self.sent or acked > received:
            raise Refused("INCONSISTENT", f"received {received}, acked {acked}")
        if acked > 0 and self.records[acked - 1].continues:
            raise Refused("INVALID_ACK", "within a message")

    def go_on(self, received, acked, credit):
        """After the resume exchange: how many records are sent again."""
        self.on_connection = received
        self.blocked_told = None
        self.credit = max(self.credit, credit)
        self.acknowledge(acked)
        return self.sent - received

    def undelivered(self):
        """Every message that is not acknowledged, and its fate."""
        parts = []
        for seq, record in enumerate(self.records, 1):
            if seq <= self.acked:
                continue
            parts.append(record.payload)
            if not record.continues:
                fate = "maybe delivered" if seq <= self.sent else "not sent"
                yield record.text, b"".join(parts), fate
                parts = []


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
