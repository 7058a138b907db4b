"""The core of topics, driven by hypothesis: a client over a link that loses, and the core's own server."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unstall._core.packet import MAX_RECORD, Refused
from unstall._core.topics import events as told
from unstall._core.topics.client import Client
from unstall._core.topics.delivered import Batch, Gap, Item, Message
from unstall._core.topics.log import Log, Publishers, Stored
from unstall._core.topics.names import NameCache, is_filter, matches
from unstall._core.topics.packet import decode, encode
from unstall._core.topics.records import Record, read_record, read_wholes, write_record
from unstall._core.topics.server import Server

OPTIONS = {"window": 262_144, "publisher": "20" * 16, "epoch": 3}
SERVER = {"publish_window": 262_144, "once": 0}
LENGTHS = st.sampled_from([0, 1, 5, 63, 64, 3_000, 60_000, MAX_RECORD, MAX_RECORD + 1, 150_000])
QUICKLY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


class World:
    """A client, a link that may lose everything behind a packet, servers, and their log."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = Client(dict(OPTIONS))
        self.log = Log(b"\x10" * 16, 1, 0, 0, [])
        self.publishers = Publishers(0)
        self.server: Server | None = None
        self.greeting: dict[str, Any] = {}
        self.published: dict[int, str] = {}
        self.failed: list[told.Refusal | told.Unknown] = []
        #: What was delivered, and the offsets of the gaps.
        self.got: list[Message] = []
        self.missing: list[Gap] = []

    def connect(self, **options: int) -> None:
        self.cut()
        self.client.attach(self.now)
        self.server = Server(SERVER | options)

    def cut(self) -> None:
        self.client.detach(self.now)
        self.server = None
        self.look()

    def carry(self, to_server: int, to_client: int) -> None:
        """So many packets arrive on each side."""
        if self.server is None:
            return
        for _ in range(to_server):
            packet = self.client.transmit(self.now)
            if packet is None:
                break
            assert self.server.handle(self.now, packet) is None
            self.serve()
        for _ in range(to_client):
            packet = self.server.transmit(self.now)
            if packet is None:
                break
            assert self.client.handle(self.now, packet) is None
        self.look()

    def serve(self) -> None:
        """The caller of the server answers."""
        assert self.server is not None
        events, self.server.events = self.server.events, []
        for event in events:
            if "hello" in event:
                self.greeting = event
                self.server.welcome(self.log)
            elif "subscribe" in event:
                self.server.deliveries[event["subscribe"]].accept(self.log)
            elif "publish" in event:
                self.server.publications.answer(self.store(event))

    def store(self, event: dict[str, Any]) -> dict[str, Any]:
        """As a log with "once" does."""
        publisher = bytes.fromhex(self.greeting["hello"])
        answer = self.publishers.publish(publisher, self.greeting["epoch"], event["publish"])
        if "before" in answer:
            return {"stored": answer["before"]}
        message = Stored(answer["stored"], 1_000 + answer["stored"], event["topic"], event["is_text"],
                         event["final"], event["payload"])  # fmt: skip
        self.log.append(message)
        return answer

    def look(self) -> None:
        """What the application is told."""
        events, self.client.events = self.client.events, []
        for event in events:
            if isinstance(event, told.Stored):
                for number in range(event.first, event.first + event.amount):
                    assert number not in self.published
                    self.published[number] = "stored"
            elif isinstance(event, told.Refusal | told.Unknown):
                self.failed.append(event)

    def take(self, number: int) -> None:
        while (item := self.client.next_item(number)) is not None:
            self.keep(number, item)

    def keep(self, number: int, item: Item) -> None:
        if isinstance(item, Batch):
            self.got += item.messages
            self.client.taken(number, item.cost)
        elif isinstance(item, Gap):
            self.missing.append(item)

    def settle(self, *numbers: int) -> None:
        """A connection that holds, until nothing more happens."""
        self.connect()
        for _ in range(3):
            for _ in range(1_000):
                before = self.client.progress, len(self.got)
                self.carry(64, 64)
                for number in numbers:
                    self.take(number)
                if before == (self.client.progress, len(self.got)):
                    break


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("connect")),
        st.tuples(st.just("cut")),
        st.tuples(st.just("carry"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("carry"), st.just(99), st.just(99)),
        st.tuples(st.just("publish"), LENGTHS, st.booleans()),
        st.tuples(st.just("publish"), st.integers(0, 200), st.booleans()),
        st.tuples(st.just("take")),
        st.tuples(st.just("remove"), st.integers(0, 5)),
    ),
    max_size=60,
)


def go(steps: list[tuple[Any, ...]], may_remove: bool) -> tuple[World, list[tuple[bool, bytes]]]:
    world, sent = World(), []
    world.client.subscribe(b"t", {"name": "beginning"})
    for step in steps:
        if step[0] == "publish":
            text, payload = step[2], b"x" * step[1]
            if isinstance(world.client.publish(b"t", text, False, payload), int):
                sent.append((text, payload))
        elif step[0] == "carry":
            world.carry(step[1], step[2])
        elif step[0] == "take":
            world.take(1)
        elif step[0] == "remove":
            if may_remove and world.log.messages:
                world.log.remove(min(world.log.first + step[1], world.log.last))
        else:
            getattr(world, step[0])()
    world.settle(1)
    assert not world.failed
    return world, sent


@given(STEPS)
@QUICKLY
def test_over_any_cuts_each_message_is_stored_once_and_delivered_once(steps: list[tuple[Any, ...]]) -> None:
    world, sent = go(steps, may_remove=False)
    assert list(world.published) == list(range(1, len(sent) + 1))
    assert [(isinstance(m.data, str), len(m.data)) for m in world.got] == [
        (text, len(payload)) for text, payload in sent]  # fmt: skip
    assert [message.offset for message in world.got] == list(range(1, len(sent) + 1))
    assert not world.missing


@given(STEPS)
@QUICKLY
def test_what_is_removed_is_delivered_once_or_lies_in_a_gap(steps: list[tuple[Any, ...]]) -> None:
    world, sent = go(steps, may_remove=True)
    counts = Counter(message.offset for message in world.got)
    assert set(counts.values()) <= {1}
    assert [m.offset for m in world.got] == sorted(counts)
    for offset in range(1, len(sent) + 1):
        in_gaps = any(gap.after < offset <= gap.through for gap in world.missing)
        before_it_began = not world.got and not world.missing
        assert offset in counts or in_gaps or before_it_began or offset < begin_of(world), offset


def begin_of(world: World) -> int:
    """A subscription from the beginning misses nothing of what was removed before it began."""
    firsts = [m.offset for m in world.got[:1]] + [gap.after + 1 for gap in world.missing[:1]]
    return min(firsts, default=0)


@given(st.lists(st.binary(max_size=40), max_size=30))
@QUICKLY
def test_no_packet_whatsoever_breaks_the_client(packets: list[bytes]) -> None:
    client = Client(dict(OPTIONS))
    client.subscribe(b"t", {"name": "beginning"})
    client.attach(0)
    while client.transmit(0):
        pass
    welcome = {"kind": "WELCOME", "log": bytes(16), "first": 1, "last": 0, "largest_message": 65_536,
               "publish_window": 262_144, "once": 0, "subscriptions": 1, "durability": 0,
               "name": ""}  # fmt: skip
    subscribed = {"kind": "SUBSCRIBED", "subscription": 1, "after": 0, "time": 0, "end": 0, "end_time": 0}
    for packet in (encode(welcome), encode(subscribed), *packets):
        before = client.state
        error = client.handle(1, packet)
        assert (error is None) or client.state == "closed"
        assert before != "closed" or error is None


RECORDS = st.lists(
    st.builds(
        lambda text, final, payload, topic, gap, time: (text, final, payload.encode(), topic, gap, time),
        st.booleans(), st.booleans(), st.text(max_size=300), st.sampled_from([b"t", b"a.b", b"x" * 200]),
        st.integers(1, 1 << 40), st.integers(0, (1 << 62) - 1),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


@given(RECORDS, st.integers(0, 3), st.data())
@QUICKLY
def test_the_quick_way_reads_what_the_slow_way_reads(drawn: list[Any], cut: int, data: st.DataObject) -> None:
    offset, records = 0, []
    for text, final, payload, topic, gap, time in drawn:
        offset += gap
        records.append(Record(text, False, final, payload, topic, offset, time))
    packet = b"".join(write_record(record) for record in records)
    packet = packet[: len(packet) - cut]
    slow: list[Message] = []
    at = 0
    try:
        while at < len(packet):
            record, at = read_record(packet, at, True, None)
            payload = record.payload.decode() if record.text else record.payload
            assert record.topic is not None
            assert record.offset is not None
            assert record.time is not None
            slow.append(Message(record.topic.decode(), payload, record.offset, record.time, record.final,
                                b"log"))  # fmt: skip
    except Refused:
        pass
    quick: list[Message] = []
    at, place, names, cost = 0, 0, NameCache(b">"), 0
    while at < len(packet):
        at, place, size = read_wholes(packet, at, b"log", place, names, quick)
        cost += size
        if at < len(packet):
            if len(quick) == len(slow):
                break
            # Final messages, and the last one if it is cut short, are left to the slow way.
            record, at = read_record(packet, at, True, None)
            place = record.offset or 0
            quick.append(slow[len(quick)])
            cost += len(record.payload) + len(record.topic or b"") + 64
    assert quick == slow
    assert cost == sum(len(as_bytes(m.data)) + len(m.topic) + 64 for m in slow)


def as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


@given(st.binary(max_size=60))
@QUICKLY
def test_a_packet_decodes_or_is_refused_and_encodes_to_something_that_decodes_alike(data: bytes) -> None:
    try:
        packet = decode(data)
    except Refused:
        return
    if isinstance(packet["kind"], str):
        assert decode(encode(packet)) == packet


@given(st.lists(st.sampled_from(["a", "b", "*", ">", "c"]), min_size=1, max_size=5),
       st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5))  # fmt: skip
@QUICKLY
def test_filters_match_as_their_text_says(pattern: list[str], topic: list[str]) -> None:
    name = ".".join(pattern).encode()
    if not is_filter(name):
        assert ">" in pattern[:-1]
        return
    rest = pattern[-1] == ">"
    fixed = pattern[:-1] if rest else pattern
    expected = all(want in ("*", token) for want, token in zip(fixed, topic, strict=False)) and (
        len(topic) >= len(pattern) if rest else len(topic) == len(pattern))  # fmt: skip
    assert matches(name, ".".join(topic).encode()) == expected


def test_a_subscription_that_was_ended_is_forgotten_when_its_connection_is_lost() -> None:
    """Once it stayed in memory for as long as the client lived."""
    world = World()
    world.client.subscribe(b"t", {"name": "beginning"})
    world.connect()
    world.carry(9, 9)
    world.client.forget(1)
    assert 1 in world.client.subscriptions
    world.cut()
    assert not world.client.subscriptions


def test_a_message_that_is_too_large_for_the_next_node_is_refused_and_the_others_are_stored() -> None:
    world = World()
    world.connect()
    world.carry(1, 1)
    for length in (5, 100_000, 6):
        assert isinstance(world.client.publish(b"t", False, False, bytes(length)), int)
    world.connect(largest_message=65_536)
    world.carry(1, 1)
    world.carry(9, 9)
    assert [(e.number, e.reason, e.may_be_stored) for e in world.failed if isinstance(e, told.Refusal)] == [
        (2, "too large", False)]  # fmt: skip
    assert list(world.published) == [1, 3]
    assert [len(message.payload) for message in world.log.messages] == [5, 6]


def test_what_was_sent_too_long_ago_is_unknown_and_not_sent_again() -> None:
    world = World()
    world.connect(once=60_000)
    world.carry(1, 1)
    for length in (5, 6):
        world.client.publish(b"t", False, False, bytes(length))
    world.carry(1, 0)  # It is stored, and the answer is lost.
    world.cut()
    world.now += 30_000
    assert world.client.next_timeout() == 60_000
    world.client.publish(b"t", False, False, bytes(7))
    world.now += 40_000
    world.client.handle_timeout(world.now)
    world.look()
    assert world.failed == [told.Unknown(1, 2)]
    world.connect(once=60_000)
    world.carry(1, 1)
    world.carry(9, 9)
    assert list(world.published) == [3]
    assert [len(message.payload) for message in world.log.messages] == [5, 6, 7]


def test_credit_comes_back_in_proportion_to_what_was_taken() -> None:
    """A consumer that takes nothing holds its window and no more, over any number of connections."""
    world = World()
    world.client.subscribe(b"t", {"name": "beginning"})
    for offset in range(1, 41):
        world.log.append(Stored(offset, 1, b"t", False, False, bytes(30_000)))
    for _ in range(10):
        world.connect()
        world.carry(99, 99)
        assert world.client.subscriptions[1].held <= 262_144
    held = world.client.subscriptions[1].held
    assert held > 131_072
    world.settle(1)
    assert [message.offset for message in world.got] == list(range(1, 41))
    assert world.client.subscriptions[1].held == 0
