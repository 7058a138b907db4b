"""Records of messages: SPEC-TOPICS.md, section 5. They are read one by one, or quickly, as long as
they are whole messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

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

#: What records of one shape have in common: how to read word, offset, time and the length of the
#: topic; the bytes of these; the shift to the two bits of size in the word, and what they add to it; and
#: of offset and time the shift, these bits, and what they add.
Shape = tuple[Callable[..., tuple[Any, ...]], int, int, int, int, int, int, int, int, int]


@lru_cache(maxsize=64)
def shape_of(word: int, offset: int, time: int) -> Shape:
    """The shape of records whose three numbers have these bits of size."""
    head = Struct(">" + LETTERS[word] + LETTERS[offset] + LETTERS[time] + "B")
    shifts = [8 * SIZES[bits] - 2 for bits in (word, offset, time)]
    return (
        head.unpack_from,
        head.size,
        shifts[0],
        word << shifts[0],
        shifts[1],
        offset,
        offset << shifts[1],
        shifts[2],
        time,
        time << shifts[2],
    )


def shape_at(data: bytes, at: int) -> Shape | None:
    """The shape of the record there. Nothing if it is cut short."""
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
    """Reads records that are whole messages, not final, and have one shape, as far as they go. The
    packet is at most 65,536 bytes. Gives where the next record begins, the last offset, and the cost."""
    shape = shape_at(data, at)
    if shape is None:
        return at, place, 0
    (
        unpack,
        head,
        word_shift,
        word_base,
        offset_shift,
        offset_bits,
        offset_base,
        time_shift,
        time_bits,
        time_base,
    ) = shape
    known, learn, append, new = names.known, names.learn, into.append, tuple.__new__
    end, begun, count = len(data), at, 0
    try:
        while at + head <= end:
            word, offset, time, topic_end = unpack(data, at)
            word -= word_base
            if word & 6 or word < 0 or word >> word_shift:
                break
            if offset >> offset_shift != offset_bits or time >> time_shift != time_bits:
                break
            topic_at = at + head
            topic_end += topic_at
            payload_end = topic_end + (word >> 3)
            if payload_end > end:
                break
            offset -= offset_base
            if offset <= place:
                raise Refused("INCONSISTENT", f"offset {offset} after {place}")
            name = data[topic_at:topic_end]
            topic = known.get(name)
            if topic is None:
                topic = learn(name)
            payload: str | bytes = data[topic_end:payload_end]
            if word & 1:
                payload = payload.decode()  # type: ignore[union-attr]
            append(new(Message, (topic, payload, offset, time - time_base, False, log)))
            place, at = offset, payload_end
            count += 1
    except UnicodeDecodeError:
        raise Refused("INVALID_TEXT", "not UTF-8") from None
    return at, place, at - begun - count * (head - RECORD_OVERHEAD)


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
