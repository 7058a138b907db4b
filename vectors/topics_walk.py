"""Goes through the exchanges and answers of topics with the second implementation."""

from forms import message_as_json, packet_as_json, payload_of, without_words
from topics_client import Client
from topics_forms import bytes_of, differ, with_hex
from topics_log import Log, Publishers, Stored
from topics_server import Server


# Exchanges.

#: What a step may result in; the rest of it are its arguments.
RESULTS = ["subscription", "number", "packets", "error", "items", "closed", "events"]


def jsonable(value):
    """What a side reports, as JSON."""
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = dict(value)
    if "payload" in value:
        value |= message_as_json(value.pop("is_text"), value.pop("payload"))
        value |= {"final": True} if value.pop("final") else {}
    return {name: jsonable_field(name, field) for name, field in value.items()}


def jsonable_field(name, field):
    if isinstance(field, bytes):
        return field.hex() if name == "log" else field.decode()
    return jsonable(field)


def start_of(step):
    start = dict(step.get("start", {"name": "beginning"}))
    if "log" in start:
        start["log"] = bytes.fromhex(start["log"])
    return start


class Walk:
    """A client, the nodes that it connects to, and the steps of one exchange."""

    def __init__(self, vector):
        self.now = 0
        self.client, self.server = Client(vector["client"]), None
        self.options = vector["server"]

    def side(self, name):
        return self.client if name == "client" else self.server

    def do(self, step):
        """The results of a step."""
        before = {name: self.code_of(name) for name in ("client", "server")}
        results = getattr(self, "do_" + step["do"])(step) or {}
        closed = {name: self.code_of(name) for name in before
                  if self.code_of(name) not in (None, before[name])}
        if closed:
            results["closed"] = closed
        events = {}
        for name in before:
            side = self.side(name)
            if side and side.events:
                events[name], side.events = jsonable(side.events), []
        return results | ({"events": events} if events else {})

    def code_of(self, name):
        return self.side(name).close_code if self.side(name) else None

    def do_connect(self, step):
        self.client.attach()
        self.server = Server(self.options | step.get("server", {}))

    def do_cut(self, _):
        self.client.detach()
        self.server = None

    def do_wait(self, step):
        self.now += step["millis"]

    def sent_by(self, name):
        packets = []
        while packet := self.side(name).transmit(self.now):
            packets.append(packet)
        return packets

    def do_lose(self, step):
        return {"packets": [packet_as_json(p) for p in self.sent_by(step["from"])]}

    def do_carry(self, step):
        packets = self.sent_by(step["from"])
        results = {"packets": [packet_as_json(p) for p in packets]}
        to = self.side("server" if step["from"] == "client" else "client")
        for packet in packets:
            error = to.handle(self.now, packet)
            if error:
                return results | {"error": error}
        return results

    def do_inject(self, step):
        data = None if "text" in step else bytes_of(step)
        error = self.side(step["to"]).handle(self.now, data)
        return {"error": error} if error else {}

    # What the application tells the client.

    def do_subscribe(self, step):
        return {"subscription": self.client.subscribe(
            step["filter"].encode(), start_of(step), step.get("largest_lag", 0))}

    def do_unsubscribe(self, step):
        self.client.unsubscribe(step["of"])

    def do_take(self, step):
        return {"items": jsonable(self.client.subscriptions[step["of"]].take())}

    def do_publish(self, step):
        text, payload = payload_of(step)
        number = self.client.publish(step["topic"].encode(), text, step.get("final", False), payload)
        return {"number" if isinstance(number, int) else "error": number}

    def do_token(self, step):
        self.client.set_token(step["token"])

    # What the log tells the server.

    def do_welcome(self, step):
        self.server.welcome(bytes.fromhex(step["log"]), step["first"], step["last"])

    def do_reject(self, step):
        self.server.reject(step["reason"], step.get("retry_after", 0), step.get("why", ""))

    def do_subscribed(self, step):
        self.server.subscribed(step["of"], step["after"], step["time"], step["end"])

    def do_deliver(self, step):
        for message in step["messages"]:
            text, payload = payload_of(message)
            self.server.deliver(step["of"], text, message.get("final", False), payload,
                                message["topic"].encode(), message["offset"], message["time"])

    def do_gap(self, step):
        self.server.gap(step["of"], step["reason"], step["certain"], step["after"],
                        step["through"])

    def do_caught_up(self, step):
        self.server.caught_up(step["of"], step["offset"], step["time"])

    def do_ended(self, step):
        self.server.ended(step["of"], step["reason"], step.get("why", ""))

    def do_answer(self, step):
        for answer in step["answers"]:
            self.server.publications.answer(answer)

    def do_go_away(self, step):
        self.server.go_away(step["within"], step.get("why", ""))

    # Both.

    def do_ping(self, step):
        self.side(step["side"]).ping()

    def do_abort(self, step):
        self.side(step["side"]).abort(step["why"])


def arguments_of(step):
    return {name: value for name, value in step.items() if name not in RESULTS}


def replayed(vector):
    """The exchange with the results of this implementation."""
    walk = Walk(vector)
    steps = []
    for step in vector["steps"]:
        step = arguments_of(step)
        steps.append(step | walk.do(step))
    return vector | {"steps": steps}


# Answers of a log.


def log_of(vector):
    messages = [Stored(m["offset"], m["time"], m["topic"].encode(), m["length"],
                       m.get("final", False)) for m in vector["messages"]]
    return Log(bytes.fromhex(vector["id"]), vector["first"], vector["last"], vector["last_time"],
               messages)


def answers_of(vector):
    subscribe = vector["subscribe"]
    return list(log_of(vector["log"]).answers(
        start_of(subscribe), subscribe["filter"].encode(), subscribe.get("largest_lag", 0),
        vector.get("largest_message", 8 << 20), vector.get("now", 0)))


def stored_of(vector):
    """The steps of publishing with their answers."""
    publishers = Publishers(vector["last"])
    return [step | {"answer": publishers.publish(bytes.fromhex(step["publisher"]), step["epoch"],
                                                 step["number"])} for step in vector["steps"]]


# Checking and writing.


def check_exchange(vector):
    got = replayed(vector)
    for number, (step, expected) in enumerate(zip(got["steps"], vector["steps"])):
        step, expected = dict(step), dict(expected)
        for results in (step, expected):
            if "packets" in results:
                results["packets"] = [without_words(packet) for packet in results["packets"]]
        differ(f"{vector['name']}, step {number}, {step['do']}", step, expected)


def check_answers(vector):
    differ(vector["name"], answers_of(vector), vector["answers"])


def check_publications(vector):
    differ(vector["name"], stored_of(vector), vector["steps"])


def written(name, values):
    """The vectors with what this implementation expects."""
    if name == "packets":
        return values | {"valid": list(map(with_hex, values["valid"]))}
    if name == "exchanges":
        return list(map(replayed, values))
    return {"subscriptions": [v | {"answers": answers_of(v)} for v in values["subscriptions"]],
            "publications": [v | {"steps": stored_of(v)} for v in values["publications"]]}
