#!/usr/bin/env python3
"""Checks the wire vectors with a second implementation of SPEC.md and SPEC-TOPICS.md: the protocol core
of the Python client, clients/python/src/unstall/_core. Every packet is decoded and encoded; every
session and exchange is gone through step by step, both sides of it. Prints N of N; fails when one
differs. With --write it writes what is expected of topics anew. Needs nothing but Python 3."""

import json
import pathlib
import sys

import core_path  # noqa: F401
from forms import message_as_json, packet_as_json, payload_of, without_words
from _core.packet import Refused, decode, encode
from _core.session import MIN_WINDOW, REJECTIONS, Session
from topics_forms import (check_match, check_names, check_topics_malformed, check_topics_valid,
                          differ)
from topics_walk import check_answers, check_exchange, check_publications, written

HERE = pathlib.Path(__file__).resolve().parent
SESSION_ID, FIRST_TOKEN = b"\x01" * 16, b"\x02" * 16


def read(name):
    return json.loads((HERE / name).read_text())


# Packets.


def as_json(packet):
    """The fields of a packet as packets.json has them."""

    def value(name, field):
        if name == "records":
            return [r._asdict() | {"payload": r.payload.hex()} for r in field]
        if isinstance(field, bytes):
            return field.hex()
        is_number = isinstance(field, int) and name not in ("kind", "code")
        return str(field) if is_number and (packet["kind"], name) != ("REJECT", "reason") else field

    return {name: value(name, field) for name, field in packet.items()}


def check_valid(vector):
    data = bytes.fromhex(vector["hex"])
    packet = decode(data)
    differ(vector["name"], as_json(packet), vector["packet"])
    # A number in a form that is longer than needed is read, and never written.
    if vector["name"] != "DATA with a length longer than needed":
        again = data[:1] if isinstance(packet["kind"], int) else encode(packet)
        differ(vector["name"], again.hex(), vector["hex"])


def check_malformed(vector):
    try:
        packet = decode(bytes.fromhex(vector["hex"]))
    except Refused as refused:
        differ(vector["name"], refused.code, vector["error"])
    else:
        raise AssertionError(f"{vector['name']}: decoded as {packet}")


# Sessions.


def parts_of(message):
    """Whether a message is text, and its bytes."""
    return (True, message.encode()) if isinstance(message, str) else (False, message)


class Walk:
    """A client, a server, and the steps of one session."""

    def __init__(self, vector):
        self.now = 0
        self.client = Session(True, vector["client"], SESSION_ID, FIRST_TOKEN)
        self.server, self.options, self.epoch = None, vector["server"], 7
        self.tokens = 0xA0
        self.reject = None
        #: The client has a connection that the server has not heard of.
        self.is_new = False
        #: The server's session has that connection.
        self.is_joined = False

    def side(self, name):
        return self.client if name == "client" else self.server

    def do(self, step):
        """The results of a step."""
        results = getattr(self, "do_" + step["do"])(step) or {}
        events = {}
        for name in ("client", "server"):
            side = self.side(name)
            if side and side.events:
                events[name], side.events = side.events, []
        return results | ({"events": events} if events else {})

    def do_connect(self, _):
        self.client.attach(self.now)
        self.is_new, self.is_joined = True, False
        return {"generation": self.client.generation}

    def sent_by(self, name):
        packets = []
        if name == "server" and self.reject:
            packets, self.reject = [self.reject], None
        if name == "client" or self.is_joined:
            while packet := self.side(name).transmit(self.now):
                packets.append(packet)
        return packets

    def do_lose(self, step):
        return {"packets": [packet_as_json(p) for p in self.sent_by(step["from"])]}

    def do_carry(self, step):
        packets = self.sent_by(step["from"])
        results = {"packets": [packet_as_json(p) for p in packets]}
        for packet in packets:
            error = self.arrive("server" if step["from"] == "client" else "client", packet)
            if error:
                self.cut(step["from"])
                return results | {"error": error}
        return results

    def do_inject(self, step):
        if "text" in step:
            error = self.arrive(step["to"], None)
            return {"error": error} if error else {}
        data = bytes.fromhex(step["hex"])
        if "repeat" in step:
            data += bytes([step["repeat"]["byte"]]) * step["repeat"]["length"]
        error = self.arrive(step["to"], data)
        return {"error": error} if error else {}

    def arrive(self, to, data):
        """One packet, or no data for a text message: the error, if it gives one."""
        if to == "server" and self.is_new:
            self.is_new = False
            return self.greet(decode(data))
        if to == "server" and not self.is_joined:
            return "not the current connection"
        side = self.side(to)
        if side.link == "detached":
            return "not the current connection"
        try:
            side.handle(self.now, data)
        except Refused as refused:
            if refused.code in REJECTIONS:
                return refused.code
            side.fail(self.now, refused)
            # ABORT is sent before the connection is lost.
            if side.abort_owed is None:
                self.cut(to)
            return refused.code
        return None

    def greet(self, hello):
        """A server: section 9."""
        differ("the first packet", hello["kind"], "HELLO")
        token, self.tokens = bytes([self.tokens]) * 16, self.tokens + 1
        reason = None
        if self.server is None or self.server.is_over():
            if hello["epoch"]:
                reason = 1 if hello["epoch"] == self.epoch else 2
            elif hello["received"] or hello["acked"] or hello["credit"] < MIN_WINDOW:
                reason = 6
            else:
                self.server = Session(False, self.options, hello["session_id"], hello["token"],
                                      self.epoch)
        reason = reason or self.server.resume(hello, token)
        self.is_joined = reason is None
        if reason:
            self.reject = encode({"kind": "REJECT", "reason": reason, "retry_after": 0})

    def cut(self, name):
        if name == "client" or self.is_joined:
            self.side(name).detach(self.now)

    def do_cut(self, step):
        self.cut(step["side"])

    def do_send(self, step):
        sent = self.side(step["side"]).send(*payload_of(step))
        return {"seq" if isinstance(sent, int) else "error": sent}

    def do_take(self, step):
        side, messages = self.side(step["side"]), []
        while batch := side.next_batch(self.now):
            messages += reversed(batch.messages)
            batch.messages.clear()
        end = side.tell_end()
        results = {"messages": [message_as_json(*parts_of(message)) for message in messages]}
        return results | ({"end": end} if end else {})

    def do_undelivered(self, step):
        back = self.side(step["side"]).outgoing.undelivered()
        fates = {True: "maybe delivered", False: "not sent"}
        return {"messages": [message_as_json(t, p) | {"fate": fates[sent]} for t, p, sent in back]}

    def do_close(self, step):
        self.side(step["side"]).close(self.now, step["code"], step["reason"], step["within"])

    def do_abort(self, step):
        self.side(step["side"]).abort(step["reason"])

    def do_acknowledge(self, step):
        self.side(step["side"]).acknowledge(self.now)

    def do_ping(self, step):
        self.side(step["side"]).ping_owed = True

    def do_go_away(self, step):
        self.server.go_away = (step["within"], step["reason"])

    def do_wait(self, step):
        self.now += step["millis"]
        for side in filter(None, (self.client, self.server)):
            side.handle_timeout(self.now)

    def do_restart(self, step):
        self.server, self.is_joined, self.epoch = None, False, step["epoch"]


#: What a step may result in; the rest of it are its arguments.
RESULTS = ["generation", "packets", "seq", "error", "messages", "end", "events"]


def check_session(vector):
    walk = Walk(vector)
    for number, step in enumerate(vector["steps"]):
        got = walk.do(step)
        expected = {name: step[name] for name in RESULTS if name in step}
        for results in (got, expected):
            if "packets" in results:
                results["packets"] = [without_words(packet) for packet in results["packets"]]
        differ(f"{vector['name']}, step {number}, {step['do']}", got, expected)


def main():
    if sys.argv[1:] == ["--write"]:
        for name in ("packets", "exchanges", "answers"):
            values = written(name, read(f"topics-{name}.json"))
            text = json.dumps(values, indent=2, ensure_ascii=False)
            (HERE / f"topics-{name}.json").write_text(text + "\n")
    packets, topics = read("packets.json"), read("topics-packets.json")
    answers = read("topics-answers.json")
    groups = [
        ("packets", check_valid, packets["valid"]),
        ("malformed packets", check_malformed, packets["malformed"]),
        ("sessions", check_session, read("sessions.json")),
        ("packets of topics", check_topics_valid, topics["valid"]),
        ("malformed packets of topics", check_topics_malformed, topics["malformed"]),
        ("lists of names", check_names, list(topics["names"].items())),
        ("filters and topics", check_match, topics["matches"]),
        ("exchanges of topics", check_exchange, read("topics-exchanges.json")),
        ("answers of a log", check_answers, answers["subscriptions"]),
        ("publications to a log", check_publications, answers["publications"]),
    ]
    failed = 0
    for name, check, vectors in groups:
        passed = 0
        for vector in vectors:
            try:
                check(vector)
                passed += 1
            except (AssertionError, Refused) as error:
                print(error, file=sys.stderr)
        failed += len(vectors) - passed
        print(f"{passed} of {len(vectors)} {name}")
    return 1 if failed or not all(vectors for _, _, vectors in groups) else 0


if __name__ == "__main__":
    sys.exit(main())
