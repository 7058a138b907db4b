"""Prints exchanges of topics, one a line, with every byte of what the server sends. The other side of
each exchange is the second implementation, the core of the Python client, so the client under test needs no server.

    exchanges.py vectors            those of vectors/topics-exchanges.json
    exchanges.py random FIRST LAST  those that are drawn by these seeds
"""

import base64
import json
import pathlib
import sys
import zlib

VECTORS = pathlib.Path(__file__).resolve().parents[4] / "vectors"
sys.path.insert(0, str(VECTORS))

import core_path  # noqa: E402, F401
import topics_walk  # noqa: E402
from random_exchanges import Draw  # noqa: E402


def whole(data):
    """A packet with all its bytes. A long one is mostly one byte many times."""
    if len(data) <= 256:
        return data.hex()
    return {"deflated": base64.b64encode(zlib.compress(data, 1)).decode()}


def main():
    topics_walk.packet_as_json = whole
    if sys.argv[1] == "vectors":
        exchanges = map(topics_walk.replayed,
                        json.loads((VECTORS / "topics-exchanges.json").read_text()))
    else:
        first, last = map(int, sys.argv[2:])
        exchanges = (Draw(seed).run() for seed in range(first, last + 1))
    for exchange in exchanges:
        print(json.dumps(exchange))


if __name__ == "__main__":
    main()
