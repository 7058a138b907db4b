"""Packets of unstall.v1: SPEC.md, sections 3, 4 and 18."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

MAX_PACKET = 65_600
MAX_RECORD = 65_536
MAX_REASON = 123
MAX_MILLIS = 315_360_000_000
MIN_LARGEST_MESSAGE = 65_536
MAX_LARGEST_MESSAGE = 1_073_741_824
RECORD_OVERHEAD = 64
DATA = 0x10

#: Kind, name, and the fields after the kind. `rest` is the rest of the packet.
LAYOUT = [
    (
        0x01,
        "HELLO",
        "session_id:16 token:16 epoch:u64 generation:u64 received:u64 acked:u64 credit:u64 "
        "largest_message:u64",
    ),
    (
        0x02,
        "WELCOME",
        "token:16 epoch:u64 generation:u64 received:u64 acked:u64 credit:u64 largest_message:u64 life:ms",
    ),
    (0x03, "REJECT", "reason:u8 retry_after:ms"),
    (DATA, "DATA", "first:u64 records:records"),
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
Fields = list[tuple[str, str]]
FIELDS: dict[str, Fields] = {
    name: [(field, form) for field, _, form in (f.partition(":") for f in fields.split())]
    for _, name, fields in LAYOUT
}
NAMES = {kind: name for kind, name, _ in LAYOUT}
KINDS = {name: kind for kind, name, _ in LAYOUT}
#: The sizes of fields. What is not here has 8 bytes.
SIZES = {"u8": 1, "u16": 2, "u32": 4, "16": 16}

#: The fields of a packet by their names, and its `kind`: a name, or the number of one to be ignored.
Packet = dict[str, Any]


class Record(NamedTuple):
    """A whole message or a part of one."""

    text: bool
    continues: bool
    payload: bytes


class Refused(Exception):
    """The peer broke the protocol; the name of the error (section 15)."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


def malformed(why: str) -> Refused:
    return Refused("MALFORMED", why)


def cost(record: Record) -> int:
    return len(record.payload) + RECORD_OVERHEAD


# Numbers and records: section 4.


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of RFC 9000, section 16, and where it ends."""
    if at >= len(data):
        raise malformed("a record without a length")
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        raise malformed("a length that is cut short")
    number = int.from_bytes(data[at : at + size], "big")
    return number & ((1 << (8 * size - 2)) - 1), at + size


def write_varint(number: int) -> bytes:
    for prefix, size in enumerate((1, 2, 4, 8)):
        if number < 1 << (8 * size - 2):
            return (prefix << (8 * size - 2) | number).to_bytes(size, "big")
    raise ValueError(number)


def head_of(is_text: bool, continues: bool, length: int) -> bytes:
    """What stands before the payload of a record."""
    return write_varint(length << 2 | continues << 1 | is_text)


#: The heads of whole records, binary and text, up to the longest with two bytes.
HEADS = tuple([head_of(is_text, False, length) for length in range(4096)] for is_text in (False, True))


def read_records(data: bytes) -> list[Record]:
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
        records.append(Record(bool(word & 1), bool(word & 2), data[at : at + length]))
        at += length
    if not records:
        raise malformed("DATA without records")
    return records


def write_records(records: Sequence[Record]) -> bytes:
    return b"".join(head_of(text, continues, len(payload)) + payload for text, continues, payload in records)


# Packets: section 3.


def read_field(form: str, data: bytes) -> tuple[Any, bytes]:
    """The value of a field, and what is left after it."""
    if form == "records":
        return read_records(data), b""
    if form == "text":
        return read_text(data, "a reason"), b""
    return read_sized(form, data)


def read_sized(form: str, data: bytes) -> tuple[Any, bytes]:
    """The value of a field that has a size, and what is left after it. Topics read such fields too."""
    size = SIZES.get(form, 8)
    if len(data) < size:
        raise malformed("cut short")
    field, rest = data[:size], data[size:]
    if form == "16":
        return field, rest
    number = int.from_bytes(field, "big")
    if form == "ms" and number > MAX_MILLIS:
        raise malformed("a time of more than ten years")
    return number, rest


def read_text(data: bytes, what: str) -> str:
    if len(data) > MAX_REASON:
        raise malformed(f"{what} that is too long")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise malformed(f"{what} that is not UTF-8") from None


def check_ranges(packet: Packet) -> None:
    kind = packet["kind"]
    if kind in ("HELLO", "WELCOME"):
        if packet["generation"] == 0 or (kind == "WELCOME" and packet["epoch"] == 0):
            raise malformed("a generation or epoch of 0")
        if not MIN_LARGEST_MESSAGE <= packet["largest_message"] <= MAX_LARGEST_MESSAGE:
            raise malformed("a largest message out of its range")
    if kind == "DATA" and packet["first"] == 0:
        raise malformed("DATA that begins with 0")


def decode(data: bytes) -> Packet:
    """The packet as a dictionary; its `kind` is a number if it is to be ignored."""
    if not 1 <= len(data) <= MAX_PACKET:
        raise malformed("an empty packet, or one that is too long")
    kind = data[0]
    if kind not in NAMES:
        if kind >= 0x80:
            return {"kind": kind}
        raise Refused("UNKNOWN_KIND", hex(kind))
    packet: Packet = {"kind": NAMES[kind]}
    rest = data[1:]
    for name, form in FIELDS[packet["kind"]]:
        packet[name], rest = read_field(form, rest)
    if rest:
        raise malformed("bytes left over")
    check_ranges(packet)
    return packet


def write_field(form: str, value: Any) -> bytes:
    if form == "records":
        return write_records(value)
    if form == "text":
        return str(value).encode()
    return write_sized(form, value)


def write_sized(form: str, value: Any) -> bytes:
    """The reverse of `read_sized`."""
    return bytes(value) if form == "16" else int(value).to_bytes(SIZES.get(form, 8), "big")


def encode(packet: Packet) -> bytes:
    fields = (write_field(form, packet[name]) for name, form in FIELDS[packet["kind"]])
    return bytes([KINDS[packet["kind"]]]) + b"".join(fields)
