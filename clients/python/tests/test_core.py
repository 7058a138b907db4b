"""The protocol core by itself: both sides over a lossy link, drawn by hypothesis."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from unstall._core.incoming import Incoming, read_whole
from unstall._core.packet import (
    FIELDS,
    MAX_MILLIS,
    Record,
    Refused,
    decode,
    encode,
    read_records,
    read_varint,
    write_varint,
)
from unstall._core.session import Session

OPTIONS = {"window": 262_144, "largest_window": 524_288, "largest_message": 200_000, "replay": 600_000}
SIZES = st.one_of(st.integers(0, 200), st.sampled_from([4_095, 4_096, 32_768, 65_536, 65_537, 150_000]))
MESSAGES = st.one_of(st.text(max_size=20), st.builds(bytes, SIZES))


class Side:
    """One side with its application: what it sent and what it received."""

    def __init__(self, core: Session) -> None:
        self.core = core
        self.sent: list[str | bytes] = []
        self.received: list[str | bytes] = []
        self.batch: list[str | bytes] = []
        self.wire: deque[bytes] = deque()


class LossyLink(RuleBasedStateMachine):
    """A client and a server, whose connection is cut at any packet. Whatever happens: each message arrives
    once and in order, both replays and windows keep their bounds, and once the wire heals, everything is
    delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.tokens = 10

    @initialize(by_hand=st.booleans())
    def begin(self, by_hand: bool) -> None:
        options = OPTIONS | {"acknowledge_by_hand": by_hand}
        self.client = Side(Session(True, options, b"i" * 16, b"t" * 16))
        self.server = Side(Session(False, OPTIONS, b"i" * 16, b"t" * 16, 7))
        self.connect()

    def sides(self) -> list[Side]:
        return [self.client, self.server]

    @rule(hello_lost=st.booleans(), welcome_lost=st.booleans())
    def reconnect(self, hello_lost: bool, welcome_lost: bool) -> None:
        self.connect(hello_lost, welcome_lost)

    def connect(self, hello_lost: bool = False, welcome_lost: bool = False) -> None:
        # What was lost on a connection is followed by nothing: the connection is dead for its peer.
        self.is_dead = hello_lost or welcome_lost
        for side in self.sides():
            side.core.detach(self.now)
            side.wire.clear()
        self.client.core.attach(self.now)
        hello = self.client.core.transmit(self.now)
        assert hello is not None
        if hello_lost:
            return
        self.tokens += 1
        assert self.server.core.resume(decode(hello), bytes([self.tokens % 256]) * 16) is None
        welcome = self.server.core.transmit(self.now)
        assert welcome is not None
        if not welcome_lost:
            self.client.core.handle(self.now, welcome)

    @rule(message=MESSAGES, is_client=st.booleans(), count=st.integers(1, 40))
    def send(self, message: str | bytes, is_client: bool, count: int) -> None:
        side = self.client if is_client else self.server
        payload = message.encode() if isinstance(message, str) else message
        for _ in range(count):
            if isinstance(side.core.send(isinstance(message, str), payload), int):
                side.sent.append(message)

    @rule(is_client=st.booleans(), count=st.integers(1, 30))
    def carry(self, is_client: bool, count: int) -> None:
        """So many packets go over. What stays on the wire is lost if the connection is cut now."""
        side, other = (self.client, self.server) if is_client else (self.server, self.client)
        self.fill(side)
        for _ in range(min(count, len(side.wire))):
            packet = side.wire.popleft()
            if not self.is_dead:
                other.core.handle(self.now, packet)

    def fill(self, side: Side) -> None:
        while len(side.wire) < 40 and (packet := side.core.transmit(self.now)) is not None:
            side.wire.append(packet)

    @rule(is_client=st.booleans(), count=st.integers(1, 50))
    def take(self, is_client: bool, count: int) -> None:
        side = self.client if is_client else self.server
        for _ in range(count):
            if not side.batch:
                batch = side.core.next_batch(self.now)
                if batch is None:
                    return
                side.batch = batch.messages
            side.received.append(side.batch.pop())

    @rule()
    def acknowledge(self) -> None:
        self.client.core.settle(self.now)
        self.client.core.acknowledge(self.now)

    @rule(millis=st.sampled_from([1, 20, 500]))
    def wait(self, millis: int) -> None:
        self.now += millis
        for side in self.sides():
            side.core.handle_timeout(self.now)

    @invariant()
    def everything_is_in_order(self) -> None:
        for side, other in ((self.client, self.server), (self.server, self.client)):
            assert other.received == side.sent[: len(other.received)]
            incoming = side.core.incoming
            assert incoming.received[1] <= incoming.granted
            assert side.core.outgoing.kept() <= OPTIONS["replay"]
            held = incoming.received[1] - incoming.taken[1] - incoming.incomplete
            assert held <= OPTIONS["largest_window"] + OPTIONS["largest_message"] + 64 * 4
            assert incoming.ready <= incoming.taken
            # Nobody has an acknowledgement for what its application did not receive.
            assert side.core.outgoing.acked <= other.core.incoming.taken[0]

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        self.connect()
        for _ in range(200):
            self.now += 20
            for side in self.sides():
                side.core.handle_timeout(self.now)
                self.take(side is self.client, 10_000)
                self.acknowledge()
                self.carry(side is self.client, 40)
        assert self.client.received == self.server.sent
        assert self.server.received == self.client.sent
        for side in self.sides():
            assert side.core.outgoing.acked == side.core.outgoing.last
            assert not list(side.core.outgoing.undelivered())
            assert (side.core.outgoing.kept(), side.core.outgoing.unsent()) == (0, 0)


LossyLink.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
TestLossyLink = LossyLink.TestCase


def test_records_that_have_arrived_are_dropped() -> None:
    incoming = Incoming(262_144, 262_144, 100_000)
    records = [Record(True, False, str(number).encode()) for number in range(1, 10)]
    for first, last in ((1, 3), (1, 3), (2, 5), (5, 5), (1, 9)):
        incoming.accept(encode({"kind": "DATA", "first": first, "records": records[first - 1 : last]}))
    assert incoming.received == (9, 9 * 65)
    taken = []
    while batch := incoming.next_batch():
        taken += batch.messages[::-1]
        batch.messages.clear()
    assert taken == [str(number) for number in range(1, 10)]


@given(st.integers(0, (1 << 62) - 1))
def test_varints_are_read_as_they_are_written(number: int) -> None:
    assert read_varint(write_varint(number), 0) == (number, len(write_varint(number)))


FORMS: dict[str, Any] = {
    "16": st.binary(min_size=16, max_size=16),
    "u8": st.integers(0, 255),
    "u16": st.integers(0, 65_535),
    "u64": st.integers(0, (1 << 64) - 1),
    "ms": st.integers(0, MAX_MILLIS),
    "text": st.text(max_size=30),
    "records": st.lists(st.builds(Record, st.booleans(), st.just(False), st.binary(max_size=50)), min_size=1),
}
NAMES = st.sampled_from([name for name in FIELDS if name not in ("HELLO", "WELCOME")])
PACKETS = NAMES.flatmap(
    lambda name: st.fixed_dictionaries(
        {"kind": st.just(name)} | {field: FORMS[form] for field, form in FIELDS[name]}
    )
)


@given(PACKETS)
def test_packets_are_decoded_as_they_were_encoded(packet: dict[str, Any]) -> None:
    if packet.get("first") == 0:
        with pytest.raises(Refused):
            decode(encode(packet))
    else:
        assert decode(encode(packet)) == packet


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_an_error(data: bytes) -> None:
    code = None
    try:
        decode(data)
    except Refused as refused:
        code = refused.code
    assert code in (None, "MALFORMED", "UNKNOWN_KIND")


@given(st.binary(max_size=100))
def test_the_quick_reading_agrees_with_the_exact_one(data: bytes) -> None:
    whole = read_whole(bytes(9) + data)
    if whole is None:
        return
    messages, size = whole
    records = read_records(data)
    assert not any(record.continues for record in records)
    assert [r.payload.decode() if r.text else r.payload for r in records] == messages
    assert size == sum(len(record.payload) for record in records)


@given(st.lists(st.binary(max_size=60), max_size=30), st.booleans())
def test_any_packets_are_handled_or_refused(packets: list[bytes], is_client: bool) -> None:
    """A hostile peer in any state: an error of the protocol, and nothing else."""
    core = Session(is_client, OPTIONS, b"i" * 16, b"t" * 16, 0 if is_client else 7)
    core.attach(0)
    core.transmit(0)
    if is_client:
        fields = {"epoch": 7, "generation": 1, "received": 0, "acked": 0, "credit": 262_144}
        rest = {"kind": "WELCOME", "token": bytes(16), "largest_message": 65_536, "life": 1_000}
        core.handle(0, encode(fields | rest))
    for packet in packets:
        try:
            core.handle(1, packet)
        except Refused as refused:
            core.fail(1, refused)
        while core.transmit(1):
            pass
