"""Goes through the exchanges and answers of topics with the second implementation."""

from forms import message_as_json, packet_as_json, payload_of, without_words
from _core.topics.client import Client
from _core.topics import events as told
from _core.topics.delivered import Batch, CaughtUp, Ended, Gap
from _core.topics.delivery import Delivery
from topics_forms import bytes_of, differ, with_hex
from _core.topics.log import Log, Publishers, Stored
from _core.topics.packet import ENDINGS, GAPS
from _core.topics.server import Server


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


def event_as_json(event):
    """What the client or a server reports. Runs of messages are one event each."""
    if isinstance(event, dict):
        return [jsonable(event)]
    if isinstance(event, told.Stored):
        return [{"published": event.first + at, "offset": event.offset and event.offset + at,
                 "durability": event.durability} for at in range(event.amount)]
    if isinstance(event, told.Unknown):
        return [{"unknown": event.first + at} for at in range(event.amount)]
    if isinstance(event, told.Refusal):
        known = {"refused": event.number, "reason": event.reason, "text": event.text}
        return [known | ({"may_be_stored": True} if event.may_be_stored else {})]
    if isinstance(event, told.Welcomed):
        return [{"welcome": event.log.hex(), "name": event.name}]
    if isinstance(event, told.Rejected):
        return [{"rejected": event.reason, "retry_after": event.retry_after, "text": event.text}]
    if isinstance(event, told.GoAway):
        return [{"go_away_within": event.window, "text": event.text}]
    if isinstance(event, told.Pong):
        return [{"pong_after": event.after}]
    return [{"aborted_by_peer": event.code}]


def item_as_json(item):
    """What the client delivers."""
    if isinstance(item, Batch):
        return [{"offset": m.offset, "time": m.time, "topic": m.topic}
                | message_as_json(isinstance(m.data, str), as_bytes(m.data))
                | ({"final": True} if m.final else {}) for m in item.messages]
    if isinstance(item, Gap):
        return [{"gap": item.reason, "certain": int(item.certain), "after": item.after,
                 "through": item.through}]
    if isinstance(item, CaughtUp):
        return [{"caught_up": item.position.offset, "time": item.position.time}]
    assert isinstance(item, Ended)
    return [{"ended": item.reason}]


def as_bytes(data):
    return data.encode() if isinstance(data, str) else data


def start_of(step):
    start = dict(step.get("start", {"name": "beginning"}))
    if "log" in start:
        start["log"] = bytes.fromhex(start["log"])
    return start


def log_of(vector):
    """The log of a vector. A vector without one has an empty log."""
    messages = [stored_of(message) for message in vector.get("messages", [])]
    last = vector.get("last", messages[-1].offset if messages else 0)
    log = Log(bytes.fromhex(vector.get("id", "10" * 16)), 1, last, 0, messages)
    log.first = messages[0].offset if messages else last + 1
    log.first = vector.get("first", log.first)
    log.last_time = vector.get("last_time", messages[-1].time if messages else 0)
    return log


def stored_of(message):
    text, payload = payload_of(message)
    return Stored(message["offset"], message["time"], message.get("topic", "t").encode(), text,
                  message.get("final", False), payload)


class Walk:
    """A client, the nodes that it connects to, their log, and the steps of one exchange."""

    def __init__(self, vector):
        self.now = 0
        self.client, self.server = Client(vector["client"]), None
        self.options, self.log = vector["server"], log_of(vector.get("log", {}))

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
                events[name] = [one for event in side.events for one in event_as_json(event)]
                side.events = []
        return results | ({"events": events} if events else {})

    def code_of(self, name):
        return self.side(name).close_code if self.side(name) else None

    def do_connect(self, step):
        self.client.attach(self.now)
        self.server = Server(self.options | step.get("server", {}))

    def do_cut(self, _):
        self.client.detach(self.now)
        self.server = None

    def do_wait(self, step):
        self.now += step["millis"]
        self.client.handle_timeout(self.now)

    def do_carry(self, step):
        sender, receiver = self.side("client"), self.side("server")
        if step["from"] == "server":
            sender, receiver = receiver, sender
        results = {"packets": []}
        while packet := sender.transmit(self.now):
            results["packets"].append(packet_as_json(packet))
            if "error" in results or len(results["packets"]) > step.get("arrive", 1 << 32):
                continue
            error = receiver.handle(self.now, packet)
            results |= {"error": error} if error else {}
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
        items = []
        while item := self.client.next_item(step["of"]):
            items += item_as_json(item)
            if isinstance(item, Batch):
                self.client.taken(step["of"], item.cost)
        return {"items": items}

    def do_publish(self, step):
        text, payload = payload_of(step)
        number = self.client.publish(step.get("topic", "t").encode(), text,
                                     step.get("final", False), payload)
        return {"number" if isinstance(number, int) else "error": number}

    def do_token(self, step):
        self.client.set_token(step["token"])

    def do_ping(self, _):
        self.client.ping()

    # The log.

    def do_append(self, step):
        for message in step["messages"]:
            self.log.append(stored_of(message))

    def do_remove(self, step):
        self.log.remove(step["through"])

    def do_replace(self, step):
        self.log = log_of(step["log"])

    def do_damage(self, step):
        self.log.damaged = (step["after"], step["through"])

    # What the caller of the server answers.

    def do_welcome(self, _):
        self.server.welcome(self.log)

    def do_reject(self, step):
        self.server.reject(step["reason"], step.get("retry_after", 0), step.get("why", ""))

    def do_accept(self, step):
        self.server.deliveries[step["of"]].accept(self.log)

    def do_end(self, step):
        self.server.deliveries[step["of"]].finish(step["reason"], step.get("why", ""))

    def do_answer(self, step):
        for answer in step["answers"]:
            self.server.publications.answer(answer)

    def do_expire(self, _):
        self.server.expire()

    def do_go_away(self, step):
        self.server.go_away(step["within"], step.get("why", ""))

    def do_abort(self, step):
        self.server.abort(step["why"])


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


def answers_of(vector):
    """What is sent in a subscription with enough credit, if the log does not change."""
    ask = vector["subscribe"]
    packet = {"subscription": 1, "credit": 1 << 40, "filter": ask["filter"].encode(),
              "start": start_of(ask), "largest_lag": ask.get("largest_lag", 0)}
    delivery, log = Delivery(packet), log_of(vector["log"])
    delivery.accept(log)
    answers = []
    while packet := delivery.next_packet(log, vector.get("now", 0),
                                         vector.get("largest_message", 8 << 20)):
        answers += answer_as_json(packet)
    return answers


def answer_as_json(packet):
    if packet["kind"] == "SUBSCRIBED":
        return [{"subscribed": packet["after"], "time": packet["time"], "end": packet["end"],
                 "end_time": packet["end_time"]}]
    if packet["kind"] == "GAP":
        return [{"gap": GAPS[packet["reason"]], "certain": packet["certain"],
                 "after": packet["after"], "through": packet["through"]}]
    if packet["kind"] == "CAUGHT_UP":
        return [{"caught_up": packet["offset"], "time": packet["time"]}]
    if packet["kind"] == "ENDED":
        return [{"ended": ENDINGS[packet["reason"]]}]
    return [{"message": r.offset} for r in packet["records"] if r.offset is not None]


def published_of(vector):
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
    differ(vector["name"], published_of(vector), vector["steps"])


def written(name, values):
    """The vectors with what this implementation expects."""
    if name == "packets":
        return values | {"valid": list(map(with_hex, values["valid"]))}
    if name == "exchanges":
        return list(map(replayed, values))
    return {"subscriptions": [v | {"answers": answers_of(v)} for v in values["subscriptions"]],
            "publications": [v | {"steps": published_of(v)} for v in values["publications"]]}
