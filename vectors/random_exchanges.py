#!/usr/bin/env python3
"""Draws exchanges of topics by seed, with the results that the second implementation has, and prints
them as JSON. `UNSTALL_EXCHANGES=FILE cargo test -p unstall-proto --test topics_vectors` goes through
them with this implementation, so that the two meet in cases that nobody thought of.

    vectors/random_exchanges.py FIRST_SEED LAST_SEED >FILE
"""

import json
import random
import sys

import core_path  # noqa: F401
from topics_walk import Walk

LOG, LOG2, NONE = "10" * 16, "11" * 16, "00" * 16
TOPICS = ["t", "u", "p.a", "p.b", "p.a.c"]
FILTERS = ["t", "u", "p.*", "p.>", ">", "*", "p.a", "none"]
LENGTHS = [60_000, 65_536, 65_537, 70_000, 131_072, 200_000]
#: How often each of these is chosen.
DEEDS = {"subscribe": 12, "accept": 30, "append": 24, "remove": 6, "take": 30, "unsubscribe": 3,
         "publish": 20, "answer": 16, "carry_client": 10, "carry_server": 10, "cut": 8, "wait": 4,
         "replace": 5, "token": 1, "expire": 1, "damage": 1}


class Draw:
    """One exchange."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.last, self.time = 0, 1_000
        client = {"window": self.of([262_144, 262_144, 1 << 20])}
        if self.chance(0.7):
            client |= {"publisher": "20" * 16, "epoch": 3}
        if self.chance(0.3):
            client["largest_message"] = 65_536
        server = {"publish_window": self.of([262_144, 1 << 20]), "once": self.of([0, 60_000])}
        self.vector = {"name": f"seed {seed}", "log": self.log(LOG), "client": client,
                       "server": server, "steps": []}
        self.walk = Walk(self.vector)
        self.subscriptions, self.gone, self.open = 0, set(), []

    def of(self, choices):
        return self.random.choice(choices)

    def chance(self, chance):
        return self.random.random() < chance

    def upto(self, most, least=0):
        return self.random.randint(least, most)

    def step(self, do, **arguments):
        step = {"do": do} | arguments
        result = self.walk.do(step)
        assert "error" not in result or do == "publish", (self.vector["name"], step, result)
        self.vector["steps"].append(step | result)
        for event in result.get("events", {}).get("server", []):
            if "publish" in event:
                self.open.append(event["publish"])

    def payload(self):
        kind = self.random.random()
        if kind < 0.6:
            return {"text": "m" * self.upto(5)}
        if kind < 0.9:
            return {"repeat": {"byte": self.of([0, 120]), "length": self.upto(7_000, 65)}}
        return {"repeat": {"byte": 120, "length": self.of(LENGTHS)}}

    def messages(self, count):
        messages = []
        for _ in range(count):
            self.last, self.time = self.last + 1, self.time + self.upto(500)
            message = {"offset": self.last, "time": self.time, "topic": self.of(TOPICS)}
            messages.append(message | self.payload() | ({"final": True} if self.chance(0.04) else {}))
        return messages

    def log(self, log_id):
        self.last, self.time = self.upto(5), 1_000
        messages = self.messages(self.upto(12))
        self.last = self.last if messages else 0
        return {"id": log_id} | ({"messages": messages} if messages else {})

    def start(self):
        messages = self.walk.log.messages
        if messages and self.chance(0.3):
            message = self.of(messages)
            return {"name": "after", "log": LOG, "offset": message.offset, "time": message.time}
        return self.of([
            {"name": "beginning"}, {"name": "now"}, {"name": "last", "count": self.upto(4, 1)},
            {"name": "since", "time": self.upto(self.time + 10, 900)},
            {"name": "latest", "log": NONE, "end": 0, "time": 0, "offset": 0},
            {"name": "latest", "log": LOG, "end": self.upto(self.last + 2),
             "time": self.of([0, 5]), "offset": self.upto(self.last + 2)},
            {"name": "after", "log": self.of([LOG, LOG, LOG2]), "offset": self.upto(self.last + 3),
             "time": self.of([0, 5])}])

    # What may happen.

    def begin(self):
        """A connection, and the answer to HELLO."""
        self.open = []
        self.step("connect")
        self.step("carry", **{"from": "client"})
        if self.chance(0.9):
            self.step("welcome")
            self.step("carry", **{"from": "server"})
        else:
            self.cut()

    def subscribe(self):
        if self.subscriptions < 4:
            self.subscriptions += 1
            lag = {"largest_lag": self.of([500, 3_000])} if self.chance(0.15) else {}
            self.step("subscribe", filter=self.of(FILTERS), start=self.start(), **lag)

    def accept(self):
        if not self.is_open():
            return
        self.carry_client()
        for delivery in list(self.walk.server.deliveries.values()):
            if delivery.stage == "asked" and self.chance(0.8):
                self.step("accept", of=delivery.number)
        self.carry_server()

    def append(self):
        self.step("append", messages=self.messages(self.upto(4, 1)))
        self.carry_server()

    def remove(self):
        if self.walk.log.messages:
            self.step("remove", through=self.of(self.walk.log.messages).offset)

    def damage(self):
        after = self.upto(self.last)
        self.step("damage", after=after, through=min(self.last, after + self.upto(3)))

    def replace(self):
        self.cut()
        self.step("replace", log=self.log(self.of([LOG, LOG, LOG2])))

    def take(self):
        for number in range(1, self.subscriptions + 1):
            if number not in self.gone and self.chance(0.5):
                self.step("take", of=number)
        self.carry_client()

    def unsubscribe(self):
        if self.subscriptions:
            number = self.upto(self.subscriptions, 1)
            if number not in self.gone:
                self.gone.add(number)
                self.step("unsubscribe", of=number)

    def publish(self):
        self.step("publish", topic=self.of(TOPICS), **self.payload())
        self.carry_client()

    def answer(self):
        count = self.upto(len(self.open))
        refusals = ["full", "too large", "unknown", "not allowed"]
        answers = [{"refused": self.of(refusals)} if self.chance(0.2)
                   else {"stored": self.of([0, self.upto(30, 1)])} for _ in range(count)]
        self.open = self.open[count:]
        if answers:
            self.step("answer", answers=answers)
        self.carry_server()

    def token(self):
        self.step("token", token="second")

    def expire(self):
        if self.is_open():
            self.step("expire")

    def wait(self):
        self.step("wait", millis=self.of([1, 1_000, 70_000]))

    def carry_client(self):
        if self.walk.server:
            self.step("carry", **{"from": "client"})

    def carry_server(self):
        if self.is_open():
            self.step("carry", **{"from": "server"})

    def cut(self):
        if not self.walk.server:
            return
        # With more subscriptions it is not the same on both sides which packets come first.
        if self.is_open() and self.subscriptions < 2:
            self.step("carry", **{"from": "server", "arrive": self.upto(3)})
        self.open = []
        self.step("cut")

    def is_open(self):
        return self.walk.server and self.walk.server.state == "open"

    def run(self):
        for _ in range(self.upto(40, 10)):
            if not self.walk.server and self.chance(0.8):
                self.begin()
            getattr(self, self.random.choices(list(DEEDS), list(DEEDS.values()))[0])()
        return self.vector


def main():
    first, last = map(int, sys.argv[1:])
    json.dump([Draw(seed).run() for seed in range(first, last + 1)], sys.stdout)


if __name__ == "__main__":
    main()
