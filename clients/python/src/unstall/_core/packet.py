"""Packets of unstall.v1: SPEC.md, sections 3, 4 and 18."""

from collections import namedtuple

MAX_PACKET = 65_600
MAX_RECORD = 65_536
MAX_REASON = 123
MAX_MILLIS = 315_360_000_000
MIN_LARGEST_MESSAGE = 65_536
MAX_LARGEST_MESSAGE = 1_073_741_824
RECORD_OVERHEAD = 64

#: Kind, name, and the fields after the kind. `rest` is the rest of the packet.
LAYOUT = [
    (0x01, "HELLO", "session_id:16 token:16 epoch:u64 generation:u64 received:u64 acked:u64 "
                    "credit:u64 largest_message:u64"),
    (0x02, "WELCOME", "token:16 epoch:u64 generation:u64 received:u64 acked:u64 credit:u64 "
                      "largest_message:u64 life:ms"),
    (0x03, "REJECT", "reason:u8 retry_after:ms"),
    (0x10, "DATA", "first:u64 records:records"),
    (0x11, "ACK", "seq:u64"),
    (0x12, "CREDIT", "offset:u64"),
    (0x13, "BLOCKED", "offset:u64"),
    (0x14, "PING", "number:u64"),
    (0x15, "PONG", "number:u64"),
    (0x18, "CLOSE", "last:u64 deadline:ms code:u16 reason:text"),
    (0x19, "END", ""),
    (0x1A, "ABORT", "code:u16 reason:text"),
    (0x1B, "GOAWAY", "window:ms reason:text"),
]
FIELDS = {name: [f.split(":") for f in fields.split()] for _, name, fields in LAYOUT}
NAMES = {kind: name for kind, name, _ in LAYOUT}
KINDS = {name: kind for kind, name, _ in LAYOUT}

#: A whole message or a part of one.
Record = namedtuple("Record", "text continues payload")


class Refused(Exception):
    """The peer broke the protocol; the name of the error (section 15)."""

    def __init__(self, code, why):
        super().__init__(f"{code}: {why}")
        self.code = code


def malformed(why):
    return Refused("MALFORMED", why)


def cost(record):
    return len(record.payload) + RECORD_OVERHEAD


def read_varint(data, at):
    """A number of RFC 9000, section 16, and where it ends."""
    if at >= len(data):
        raise malformed("a record without a length")
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        raise malformed("a length that is cut short")
    number = int.from_bytes(data[at:at + size], "big")
    return number & ((1 << (8 * size - 2)) - 1), at + size


def write_varint(number):
    for prefix, size in enumerate((1, 2, 4, 8)):
        if number < 1 << (8 * size - 2):
            return (prefix << (8 * size - 2) | number).to_bytes(size, "big")
    raise ValueError(number)


def read_records(data):
    records, at = [], 0
    while at < len(data):
        word, at = read_varint(data, at)
        length = word >> 2
        if length > MAX_RECORD:
            raise malformed("a record that is too long")
        if at + length > len(data):
            raise malformed("a record that is cut short")
        if word & 2 and length == 0:
            raise malformed("an empty record that continues")
        records.append(Record(bool(word & 1), bool(word & 2), data[at:at + length]))
        at += length
    if not records:
        raise malformed("DATA without records")
    return records


def write_record(record):
    word = len(record.payload) << 2 | record.continues << 1 | record.text
    return write_varint(word) + record.payload


def read_field(form, data):
    """The value of a field, and what is left after it."""
    if form == "records":
        return read_records(data), b""
    if form == "text":
        if len(data) > MAX_REASON:
            raise malformed("a reason that is too long")
        try:
            return data.decode(), b""
        except UnicodeDecodeError:
            raise malformed("a reason that is not UTF-8") from None
    size = {"u8": 1, "u16": 2, "u64": 8, "ms": 8, "16": 16}[form]
    if len(data) < size:
        raise malformed("cut short")
    field, rest = data[:size], data[size:]
    if form == "16":
        return field, rest
    number = int.from_bytes(field, "big")
    if form == "ms" and number > MAX_MILLIS:
        raise malformed("a time of more than ten years")
    return number, rest


def check_ranges(packet):
    kind = packet["kind"]
    if kind in ("HELLO", "WELCOME"):
        if packet["generation"] == 0 or (kind == "WELCOME" and packet["epoch"] == 0):
            raise malformed("a generation or epoch of 0")
        if not MIN_LARGEST_MESSAGE <= packet["largest_message"] <= MAX_LARGEST_MESSAGE:
            raise malformed("a largest message out of its range")
    if kind == "DATA" and packet["first"] == 0:
        raise malformed("DATA that begins with 0")


def decode(data):
    """The packet as a dictionary; its `kind` is a number if it is to be ignored."""
    if not 1 <= len(data) <= MAX_PACKET:
        raise malformed("an empty packet, or one that is too long")
    kind = data[0]
    if kind not in NAMES:
        if kind >= 0x80:
            return {"kind": kind}
        raise Refused("UNKNOWN_KIND", hex(kind))
    packet, rest = {"kind": NAMES[kind]}, data[1:]
    for name, form in FIELDS[packet["kind"]]:
        packet[name], rest = read_field(form, rest)
    if rest:
        raise malformed("bytes left over")
    check_ranges(packet)
    return packet


def write_field(form, value):
    if form == "records":
        return b"".join(map(write_record, value))
    if form == "text":
        return value.encode()
    if form == "16":
        return value
    return value.to_bytes({"u8": 1, "u16": 2, "u64": 8, "ms": 8}[form], "big")


def encode(packet):
    fields = (write_field(form, packet[name]) for name, form in FIELDS[packet["kind"]])
    return bytes([KINDS[packet["kind"]]]) + b"".join(fields)
