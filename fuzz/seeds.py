#!/usr/bin/env python3
"""Writes the seed corpora of the fuzz targets from the wire vectors and from the tests of inflating."""
import json
import pathlib
import re

here = pathlib.Path(__file__).resolve().parent
vectors = here.parent / "vectors"


def corpus(target):
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def packets_of(session):
    """Each whole packet of a recorded session, with the side that it goes to."""
    for step in session["steps"]:
        # A text message is no packet.
        if step["do"] == "inject" and "hex" in step:
            yield step["to"], step["hex"]
        to = "server" if step.get("from") == "client" else "client"
        for packet in step.get("packets", []):
            if isinstance(packet, str):
                yield to, packet


def script(first, packets):
    """A script of the target `session`: packets by hand, sending and taking in between."""
    steps = bytearray([first])
    for packet in packets:
        raw = bytes.fromhex(packet)
        # A packet; a message of 5 bytes; all that is to be sent; all that came is taken.
        steps += b"\x00" + len(raw).to_bytes(2, "big") + raw
        steps += b"\x0d\x05\x01" + b"\x12" + b"\x17"
    return bytes(steps)


packets = json.loads((vectors / "packets.json").read_text())
sessions = json.loads((vectors / "sessions.json").read_text())
sessions = sessions if isinstance(sessions, list) else sessions["sessions"]

count = 0
for index, packet in enumerate(packets["valid"] + packets["malformed"]):
    (corpus("decode") / f"packet-{index}").write_bytes(bytes.fromhex(packet["hex"]))
    for first in (0, 1, 4, 6):
        seed = script(first, [packet["hex"]])
        (corpus("session") / f"packet-{index}-{first}").write_bytes(seed)
    count += 5

for index, session in enumerate(sessions):
    for side, first in (("client", 0), ("client", 4), ("server", 1), ("server", 3)):
        seed = script(first, [hex for to, hex in packets_of(session) if to == side])
        (corpus("session") / f"session-{index}-{first}").write_bytes(seed)
        count += 1
    for number, (_, packet) in enumerate(packets_of(session)):
        (corpus("decode") / f"session-{index}-{number}").write_bytes(bytes.fromhex(packet))
        count += 1

# Scripts of the target `pair`: every action once, and a whole session with a cut.
for options in range(8):
    lively = bytes([options]) + bytes(range(0, 256, 3)) * 2
    (corpus("pair") / f"actions-{options}").write_bytes(lively)
    count += 1

# Scripts of the target `inflate`: a compressed message, whole and in two frames.
tests = (here.parent / "lib" / "src" / "ws" / "fuzzed.rs").read_text()
payloads = tests.split("const SEEDS")[1].split("];")[0]
for index, hex in enumerate(re.findall(r'"([0-9a-f]*)"', payloads)):
    raw = bytes.fromhex(hex)
    half = len(raw) // 2
    for options in (0, 0x10, 0x30, 0x3F):
        seed = bytes([options])
        for kind, payload in ((0, raw), (3, raw[:half]), (5, raw[half:])):
            seed += bytes([kind]) + len(payload).to_bytes(2, "big") + payload
        (corpus("inflate") / f"seed-{index}-{options}").write_bytes(seed)
        count += 1
print(f"{count} seeds")
