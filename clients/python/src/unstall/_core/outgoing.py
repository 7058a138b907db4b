"""What one side of a session sends: SPEC.md, sections 4, 5, 7 and 8."""

from .packet import MAX_RECORD, Record, Refused, cost, write_record

FILL = 32_768
MAX_PACKET_COST = 131_072


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
