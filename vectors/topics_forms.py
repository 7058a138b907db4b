"""How topics-packets.json writes packets and names, and whether this implementation agrees."""

from forms import message_as_json, payload_of
from _core.packet import Refused
from _core.topics.names import is_filter, is_topic, matches
from _core.topics.packet import FIELDS, START_FIELDS, decode, encode
from _core.topics.records import Record


def differ(what, got, expected):
    if got != expected:
        raise AssertionError(f"{what}\n  is       {got}\n  expected {expected}")


# Packets.

NUMBERS = ("u64", "ms", "size", "offset")


def name_as_json(name, is_valid):
    """A topic or filter as text; what is none as hex."""
    return name.decode() if is_valid(name) else {"hex": name.hex()}


def name_of(value):
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value.encode()


def record_as_json(record):
    fields = {"text": record.text, "continues": record.continues, "final": record.final}
    if record.offset is not None:
        fields |= {"offset": str(record.offset), "time": str(record.time)}
    if record.topic is not None:
        fields["topic"] = name_as_json(record.topic, is_topic)
    if len(record.payload) > 64:
        return fields | message_as_json(False, record.payload)
    return fields | {"payload": record.payload.hex()}


def record_of(fields):
    payload = (payload_of({"repeat": fields["repeat"]})[1] if "repeat" in fields
               else bytes.fromhex(fields["payload"]))
    first = {}
    if "offset" in fields:
        first = {"offset": int(fields["offset"]), "time": int(fields["time"])}
    if "topic" in fields:
        first["topic"] = name_of(fields["topic"])
    return Record(fields["text"], fields["continues"], fields["final"], payload, **first)


def field_as_json(form, value):
    if form == "start":
        fields = {name: field_as_json(f, value[name]) for name, f in START_FIELDS[value["name"]]}
        return {"name": value["name"]} | fields
    if form == "rest":
        return name_as_json(value, is_filter)
    if form in ("stored", "published"):
        return list(map(record_as_json, value))
    if form == "runs":
        return [{"count": str(count), "offset": str(offset)} for count, offset in value]
    if form == "16":
        return value.hex()
    if form == "token" and len(value) > 256:
        return {"repeat": {"text": value[0], "times": len(value)}}
    return str(value) if form in NUMBERS else value


def field_of(form, value):
    if form == "start":
        fields = {name: field_of(f, value[name]) for name, f in START_FIELDS[value["name"]]}
        return {"name": value["name"]} | fields
    if form == "rest":
        return name_of(value)
    if form in ("stored", "published"):
        return list(map(record_of, value))
    if form == "runs":
        return [(int(run["count"]), int(run["offset"])) for run in value]
    if form == "16":
        return bytes.fromhex(value)
    if isinstance(value, dict):
        return value["repeat"]["text"] * value["repeat"]["times"]
    return int(value) if form in NUMBERS else value


def packet_fields(packet):
    """The fields of a packet as topics-packets.json has them."""
    if isinstance(packet["kind"], int):
        return packet
    fields = {name: field_as_json(form, packet[name]) for name, form in FIELDS[packet["kind"]]}
    return {"kind": packet["kind"]} | fields


def packet_of(fields):
    """The reverse."""
    packet = {name: field_of(form, fields[name]) for name, form in FIELDS[fields["kind"]]}
    return {"kind": fields["kind"]} | packet


def bytes_of(vector):
    """The bytes of a vector: hex, and one byte many times."""
    repeat = vector.get("repeat", {"byte": 0, "length": 0})
    return bytes.fromhex(vector["hex"]) + bytes([repeat["byte"]]) * repeat["length"]


def hex_of(data):
    """The reverse: what a packet ends with many times is not written."""
    end = len(data.rstrip(data[-1:]))
    if len(data) - end <= 128:
        return {"hex": data.hex()}
    return {"hex": data[:end].hex(), "repeat": {"byte": data[-1], "length": len(data) - end}}


def within_of(vector):
    """The record before the packet, if it begins within a message."""
    if "within" not in vector:
        return None
    return Record(vector["within"]["text"], True, vector["within"]["final"], b"?")


def check_topics_valid(vector):
    data = bytes_of(vector)
    packet = decode(data, within_of(vector))
    differ(vector["name"], packet_fields(packet), vector["packet"])
    if isinstance(packet["kind"], str):
        again = encode(packet_of(vector["packet"]))
        differ(vector["name"], again, bytes.fromhex(vector.get("shortest", "")) or data)


def check_topics_malformed(vector):
    try:
        packet = decode(bytes_of(vector), within_of(vector))
    except Refused as refused:
        differ(vector["name"], refused.code, vector["error"])
    else:
        raise AssertionError(f"{vector['name']}: decoded as {packet}")


def check_names(named):
    kind, values = named
    is_valid, expected = {"topics": (is_topic, True), "no_topics": (is_topic, False),
                          "filters": (is_filter, True), "no_filters": (is_filter, False)}[kind]
    assert values
    for value in values:
        differ(f"{kind}: {value}", is_valid(name_of(value)), expected)


def check_match(vector):
    got = matches(vector["filter"].encode(), vector["topic"].encode())
    differ(f"{vector['filter']} and {vector['topic']}", got, vector["matches"])


def with_hex(vector):
    """A packet whose bytes follow from its fields."""
    if isinstance(vector["packet"]["kind"], int) or "shortest" in vector:
        return vector
    rest = {name: vector[name] for name in ("name", "within") if name in vector}
    return rest | hex_of(encode(packet_of(vector["packet"]))) | {"packet": vector["packet"]}
