"""Packets of unstall.topics.v1: SPEC-TOPICS.md, section 4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..packet import (
    MAX_LARGEST_MESSAGE,
    MAX_RECORD,
    MIN_LARGEST_MESSAGE,
    Refused,
    malformed,
    read_sized,
    read_text,
    read_varint,
    write_sized,
    write_varint,
)
from .delivered import OFFSETS
from .records import Record, read_record, write_record

MAX_PACKET = 66_560
MAX_TOKEN = 8_192
MIN_CREDIT = 131_072
MIN_PUBLISH_WINDOW = 262_144

#: Kind, name, who sends it, and the fields after the kind. The last one may be the rest.
LAYOUT = [
    (0x01, "HELLO", "client", "publisher:16 epoch:u64 largest_message:size token:token"),
    (
        0x02,
        "WELCOME",
        "server",
        "log:16 first:offset last:offset largest_message:size publish_window:u64 once:ms "
        "subscriptions:u32 durability:u8 name:text",
    ),
    (0x03, "REJECT", "server", "reason:u8 retry_after:ms text:text"),
    (0x04, "TOKEN", "client", "token:token"),
    (0x14, "PING", "both", "number:u64"),
    (0x15, "PONG", "both", "number:u64"),
    (0x1A, "ABORT", "both", "code:u16 text:text"),
    (0x1B, "GOAWAY", "server", "window:ms text:text"),
    (0x20, "SUBSCRIBE", "client", "subscription:u32 credit:u64 largest_lag:ms start:start filter:rest"),
    (
        0x21,
        "SUBSCRIBED",
        "server",
        "subscription:u32 after:offset time:offset end:offset end_time:offset",
    ),
    (0x22, "MESSAGES", "server", "subscription:u32 records:stored"),
    (0x23, "GAP", "server", "subscription:u32 reason:u8 certain:u8 after:offset through:offset"),
    (0x24, "CAUGHT_UP", "server", "subscription:u32 offset:offset time:offset"),
    (0x25, "CREDIT", "client", "subscription:u32 credit:u64"),
    (0x26, "UNSUBSCRIBE", "client", "subscription:u32"),
    (0x27, "ENDED", "server", "subscription:u32 reason:u8 text:text"),
    (0x30, "PUBLISH", "client", "first:u64 records:published"),
    (0x31, "PUBLISHED", "server", "durability:u8 first:u64 runs:runs"),
    (0x32, "REFUSED", "server", "number:u64 reason:u8 text:text"),
]
FIELDS = {name: [f.split(":") for f in fields.split()] for _, name, _, fields in LAYOUT}
NAMES = {kind: name for kind, name, _, _ in LAYOUT}
KINDS = {name: kind for kind, name, _, _ in LAYOUT}
SENDERS = {name: sender for _, name, sender, _ in LAYOUT}

#: The starts of SUBSCRIBE: name and fields.
STARTS = [
    ("beginning", ""),
    ("now", ""),
    ("after", "log:16 offset:offset time:offset"),
    ("last", "count:u64"),
    ("latest", "log:16 end:offset time:offset offset:offset"),
    ("since", "time:offset"),
]
START_FIELDS = {name: [f.split(":") for f in fields.split()] for name, fields in STARTS}

#: The reasons and the durabilities, by number.
REJECTIONS = {1: "not allowed", 2: "full", 3: "unavailable"}
GAPS = {1: "removed", 2: "another log", 3: "diverged", 4: "moved ahead", 5: "too large", 6: "damaged"}
REFUSALS = {
    1: "not allowed",
    2: "invalid topic",
    3: "too large",
    4: "full",
    5: "fenced",
    6: "expired",
    7: "unknown",
    8: "unavailable",
}
ENDINGS = {
    1: "unsubscribed",
    2: "final",
    3: "not allowed",
    4: "expired",
    5: "invalid filter",
    6: "too many subscriptions",
    7: "unavailable",
}
REASONS = {"REJECT": REJECTIONS, "GAP": GAPS, "REFUSED": REFUSALS, "ENDED": ENDINGS}
DURABILITIES = 5

#: Up to this size a packet is filled with records.
FILL = 32_768
#: In place of the record before: what comes is ignored, readable or not.
IGNORED = object()

Fields = Sequence[Sequence[str]]
Packet = dict[str, Any]


def number_of(names: Mapping[int, str], name: str) -> int:
    return next(number for number, known in names.items() if known == name)


# Records: section 5.


def split(text: bool, final: bool, payload: bytes, **first: Any) -> list[Record]:
    """A message as records; `first` are the fields of the first one."""
    starts = range(0, len(payload), MAX_RECORD) or [0]
    return [
        Record(
            text,
            at + MAX_RECORD < len(payload),
            final,
            payload[at : at + MAX_RECORD],
            **(first if at == 0 else {}),
        )
        for at in starts
    ]


def read_records(data: bytes, stored: bool, within: Record | None) -> list[Record]:
    """The records of a packet. `within` is the record before, if its message continues."""
    records: list[Record] = []
    at = 0
    while at < len(data):
        record, at = read_record(data, at, stored, within)
        records.append(record)
        within = record if record.continues else None
    if not records:
        raise malformed("no records")
    return records


def pack(records: Iterable[Record], size: int, fits: Callable[[Record], bool]) -> int:
    """How many records the next packet takes: about 32 KiB, and at least one."""
    count = 0
    for record in records:
        size += len(write_record(record))
        if not fits(record) or (count and size > FILL):
            break
        count += 1
    return count


# Runs of PUBLISHED: section 10.


def read_runs(data: bytes) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    at = 0
    while at < len(data):
        count, at = read_varint(data, at)
        offset, at = read_varint(data, at)
        if count == 0 or offset + count > OFFSETS:
            raise malformed("a run of nothing, or beyond the largest offset")
        runs.append((count, offset))
    if not runs:
        raise malformed("no runs")
    return runs


def write_runs(runs: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(write_varint(count) + write_varint(offset) for count, offset in runs)


# Packets: section 4.


def read_fields(fields: Fields, data: bytes, within: Any) -> tuple[Packet, bytes]:
    values: Packet = {}
    for name, form in fields:
        values[name], data = read_field(form, data, within)
    return values, data


def read_field(form: str, data: bytes, within: Any) -> tuple[Any, bytes]:
    """The value of a field, and what is left after it."""
    if form == "rest":
        return data, b""
    if form in ("stored", "published"):
        return [] if within is IGNORED else read_records(data, form == "stored", within), b""
    if form == "runs":
        return read_runs(data), b""
    if form == "text":
        return read_text(data, "a text"), b""
    if form == "token":
        if len(data) > MAX_TOKEN or not all(0x21 <= byte <= 0x7E for byte in data):
            raise malformed("a token that is too long or not visible ASCII")
        return data.decode(), b""
    if form == "start":
        return read_start(data, within)
    number, rest = read_sized(form, data)
    if form == "offset" and number >= OFFSETS:
        raise malformed("an offset or a time that is too large")
    if form == "size" and not MIN_LARGEST_MESSAGE <= number <= MAX_LARGEST_MESSAGE:
        raise malformed("a largest message out of its range")
    return number, rest


def read_start(data: bytes, within: Any) -> tuple[Packet, bytes]:
    if not data or data[0] >= len(STARTS):
        raise malformed("an unknown start, or none")
    name = STARTS[data[0]][0]
    start, rest = read_fields(START_FIELDS[name], data[1:], within)
    if name == "last" and not 1 <= start["count"] < 1 << 32:
        raise malformed("a count out of its range")
    if name == "latest" and not any(start["log"]) and (start["end"] or start["time"] or start["offset"]):
        raise malformed("a snapshot of no log")
    return {"name": name} | start, rest


def check_ranges(packet: Packet) -> None:
    kind = packet["kind"]
    if kind == "HELLO" and (packet["epoch"] == 0) != (packet["publisher"] == bytes(16)):
        raise malformed("an epoch without a publisher, or the reverse")
    if kind == "WELCOME":
        if packet["publish_window"] < MIN_PUBLISH_WINDOW or packet["subscriptions"] == 0:
            raise malformed("a limit below the smallest")
        if not 1 <= packet["first"] <= packet["last"] + 1:
            raise malformed("a first message behind the last, or at 0")
    if kind == "SUBSCRIBE" and packet["credit"] < MIN_CREDIT:
        raise malformed("a first credit below the smallest")
    if packet.get("certain", 0) > 1 or packet.get("durability", 0) >= DURABILITIES:
        raise malformed("a field out of its range")
    if kind in REASONS and packet["reason"] not in REASONS[kind]:
        raise malformed("an unknown reason")
    if kind in ("PUBLISH", "PUBLISHED") and packet["first"] == 0:
        raise malformed("the number 0")
    if kind == "REFUSED" and packet["number"] == 0:
        raise malformed("the number 0")
    if kind == "PUBLISHED" and packet["first"] + sum(n for n, _ in packet["runs"]) > 1 << 64:
        raise malformed("numbers beyond the largest")


def decode(data: bytes, within: Any = None) -> Packet:
    """The packet as a dictionary; its `kind` is a number if it is to be ignored. `within` is the
    last record of the same stream, or a function that finds it for the packet's fields, if the
    packet begins within a message."""
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
        if form in ("stored", "published") and callable(within):
            within = within(packet)
        packet[name], rest = read_field(form, rest, within)
    if rest:
        raise malformed("bytes left over")
    check_ranges(packet)
    return packet


def write_field(form: str, value: Any) -> bytes:
    if form in ("stored", "published"):
        return b"".join([write_record(record) for record in value])
    if form == "runs":
        return write_runs(value)
    if form in ("text", "token"):
        return str(value).encode()
    if form == "rest":
        return bytes(value)
    if form == "start":
        number = [name for name, _ in STARTS].index(value["name"])
        return bytes([number]) + write_fields(START_FIELDS[value["name"]], value)
    return write_sized(form, value)


def write_fields(fields: Fields, values: Packet) -> bytes:
    return b"".join(write_field(form, values[name]) for name, form in fields)


def encode(packet: Packet) -> bytes:
    return bytes([KINDS[packet["kind"]]]) + write_fields(FIELDS[packet["kind"]], packet)
