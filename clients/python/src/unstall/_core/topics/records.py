"""Records of messages: SPEC-TOPICS.md, section 5. They are read one by one, or quickly, as long as
they are whole messages."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from ..packet import MAX_RECORD, RECORD_OVERHEAD, Refused, malformed, read_varint, write_varint
from .delivered import Message
from .names import NameCache, is_topic


class Record(NamedTuple):
    """A whole message or a piece of one. `topic` is there in the first record of a message, `offset`
    and `time` too if it comes from the log."""

    text: bool
    continues: bool
    final: bool
    payload: bytes
    topic: bytes | None = None
    offset: int | None = None
    time: int | None = None


def cost(record: Record) -> int:
    return len(record.payload) + len(record.topic or b"") + RECORD_OVERHEAD


def read_part(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    if at + length > len(data):
        raise malformed("a record that is cut short")
    return data[at : at + length], at + length


def read_record(data: bytes, at: int, stored: bool, within: Record | None) -> tuple[Record, int]:
    """One record, and where it ends. `within` is the record before, if its message continues."""
    word, at = read_varint(data, at)
    text, continues, final, length = bool(word & 1), bool(word & 2), bool(word & 4), word >> 3
    if length > MAX_RECORD:
        raise malformed("a record that is too long")
    if continues and length == 0:
        raise malformed("an empty record that continues")
    topic = offset = time = None
    if within is None:
        if stored:
            offset, at = read_varint(data, at)
            time, at = read_varint(data, at)
            if offset == 0:
                raise malformed("a message at offset 0")
        size, at = read_part(data, at, 1)
        topic, at = read_part(data, at, size[0])
        if stored and not is_topic(topic):
            raise malformed("a topic that is none")
    elif (within.text, within.final) != (text, final):
        raise malformed("a message that changes")
    payload, at = read_part(data, at, length)
    return Record(text, continues, final, payload, topic, offset, time), at


# Quickly.

LETTERS = ("B", "H", "I", "Q")
SIZES = (1, 2, 4, 8)

#: How many lengths of a shape are remembered. There are 64 shapes, so a server cannot take more than 13 MB
#: with them.
LENGTHS = 2_048


class Lengths(dict[int, "int | None"]):
    """The length of the payload by the word of a record, as it stands there: of text below zero, as
    -1 - length. None if the record is not a whole message, or final."""

    def __init__(self, base: int, end: int) -> None:
        super().__init__()
        self._base, self._end = base, end

    def __missing__(self, word: int) -> int | None:
        if len(self) >= LENGTHS:
            self.clear()
        length: int | None = None
        if self._base <= word < self._end and not word & 6:
            length = (word - self._base) >> 3
            length = -1 - length if word & 1 else length
        self[word] = length
        return length


class Shape:
    """What records of one shape have in common: the sizes of their three numbers. A number stands in the
    record with two bits of size in front, so each has a `base` and is below an `end`."""

    def __init__(self, word: int, offset: int, time: int) -> None:
        head = Struct(">" + LETTERS[word] + LETTERS[offset] + LETTERS[time] + "B")
        self.unpack, self.size = head.unpack_from, head.size
        ranges = [
            (bits << (8 * SIZES[bits] - 2), (bits + 1) << (8 * SIZES[bits] - 2))
            for bits in (word, offset, time)
        ]
        self.lengths = Lengths(*ranges[0])
        self.offset_base, self.offset_end = ranges[1]
        self.time_base, self.time_end = ranges[2]


shape_of = lru_cache(maxsize=64)(Shape)


def shape_at(data: bytes, at: int) -> Shape | None:
    """The shape of the record there. None if it is cut short."""
    try:
        word = data[at] >> 6
        at += SIZES[word]
        offset = data[at] >> 6
        return shape_of(word, offset, data[at + SIZES[offset]] >> 6)
    except IndexError:
        return None


def read_wholes(
    data: bytes, at: int, log: bytes, place: int, names: NameCache, into: list[Message]
) -> tuple[int, int, int]:
    """Reads records as far as they are whole messages, not final, in order, and of one shape. The packet
    is at most 65,536 bytes. Gives where the next record begins, the last offset, and the cost."""
    shape = shape_at(data, at)
    if shape is None:
        return at, place, 0
    unpack, head, lengths = shape.unpack, shape.size, shape.lengths
    offset_base, offset_end = shape.offset_base, shape.offset_end
    time_base, time_end = shape.time_base, shape.time_end
    known, learn, append, new = names.known, names.learn, into.append, tuple.__new__
    begun, before, end = at, len(into), len(data)
    # Offsets are compared as they stand there.
    last = place + offset_base
    try:
        while at + head <= end:
            word, offset, time, topic_end = unpack(data, at)
            length = lengths[word]
            if length is None or not last < offset < offset_end or not time_base <= time < time_end:
                break
            topic_at = at + head
            topic_end += topic_at
            payload: str | bytes
            if length >= 0:
                payload_end = topic_end + length
                if payload_end > end:
                    break
                payload = data[topic_end:payload_end]
            else:
                payload_end = topic_end - 1 - length
                if payload_end > end:
                    break
                payload = data[topic_end:payload_end].decode()
            name = data[topic_at:topic_end]
            topic = known.get(name)
            if topic is None:
                topic = learn(name)
            append(new(Message, (topic, payload, offset - offset_base, time - time_base, False, log)))
            last, at = offset, payload_end
    except UnicodeDecodeError:
        raise Refused("INVALID_TEXT", "not UTF-8") from None
    count = len(into) - before
    return at, last - offset_base, at - begun - count * (head - RECORD_OVERHEAD)


# Writing.

#: The number in front of a record. Records of a few lengths are most of them.
write_word = lru_cache(maxsize=4_096)(write_varint)


def record_head(
    text: bool,
    continues: bool,
    final: bool,
    length: int,
    topic: bytes | None,
    stored: tuple[int, int] | None = None,
) -> bytes:
    """What stands in front of the payload."""
    head: bytes = write_word(length << 3 | final << 2 | continues << 1 | text)
    if stored is not None:
        head += write_varint(stored[0]) + write_varint(stored[1])
    if topic is not None:
        head += bytes((len(topic),)) + topic
    return head


def write_record(record: Record) -> bytes:
    stored = None
    if record.offset is not None and record.time is not None:
        stored = record.offset, record.time
    return (
        record_head(record.text, record.continues, record.final, len(record.payload), record.topic, stored)
        + record.payload
    )
