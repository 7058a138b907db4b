"""A worker of the suite that uses Python's websockets, for the workloads `compressed` and
`compressed-held`. It takes a job and writes its report as the other workers do (src/job.rs). The suite
starts it with the Python of interop/venv."""

import asyncio
import json
import os
import resource
import socket
import sys
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)

# The window of all contestants, and their level. `memLevel` is what websockets chooses itself.
BITS = {"server_max_window_bits": 12, "client_max_window_bits": 12}
SETTINGS = {"compress_settings": {"memLevel": 5, "level": 1}}
# Each way over each connection, as in src/workloads/compressed.rs.
TICKS = 40
# As many as bench/src/payload.rs has.
DISTINCT_TICKS = 1_009
WORD = bytes(8)


def tick(place: int, size: int) -> bytes:
    """As `tick` in src/contestants/compressed.rs."""
    random = place + 1

    def below(bound: int) -> int:
        nonlocal random
        random ^= random << 13 & (1 << 64) - 1
        random ^= random >> 7
        random ^= random << 17 & (1 << 64) - 1
        return random % bound

    text = "["
    while len(text) < size:
        text += (
            '{"stream":"btcusdt@trade","data":{"e":"trade","E":17000000%05d,"s":"BTCUSDT",'
            '"t":33100%05d,"p":"432%02d.%02d","q":"0.%05d","m":%s}},'
            % (
                place * 13,
                place,
                below(100),
                below(100),
                below(100_000),
                "true" if below(2) == 0 else "false",
            )
        )
    return text[: size - 1].encode() + bytes([97 + place % 26])


def ticks(size: int) -> list[bytes]:
    return [tick(place, size) for place in range(DISTINCT_TICKS)]


def rss() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def settled() -> int:
    """The resident memory, once it no longer changes."""
    before = -1
    while (now := rss()) != before:
        before = now
        await asyncio.sleep(0.2)
    return now


class Meter:
    def __init__(self):
        self.began, self.usage = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)

    def report(self, messages: int, sockets, figures=None) -> dict:
        seconds, usage = time.perf_counter() - self.began, resource.getrusage(resource.RUSAGE_SELF)
        spent = lambda name: getattr(usage, name) - getattr(self.usage, name)
        return {
            "messages": messages,
            "seconds": seconds,
            "user_ns": int(spent("ru_utime") * 1e9),
            "system_ns": int(spent("ru_stime") * 1e9),
            "waited": spent("ru_nvcsw"),
            "preempted": spent("ru_nivcsw"),
            "peak_rss_bytes": usage.ru_maxrss * 1024,
            "pinned": next(iter(os.sched_getaffinity(0))),
            "sockets": [facts(one) for one in sockets],
            "figures": figures or {},
        }


def facts(ws) -> dict:
    sock = ws.transport.get_extra_info("socket")
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    nodelay = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    return {"congestion_control": name.rstrip(b"\0").decode(), "nodelay": bool(nodelay)}


def kib(before: int, after: int, connections: int) -> dict:
    return {"kib": (after - before) / 1024 / (connections - 1)}


async def server(job: dict):
    plan, done = job["plan"], asyncio.get_running_loop().create_future()
    first = True

    async def push(ws):
        """The workload `compressed`."""
        payloads = ticks(plan["size"])
        await ws.recv()
        meter = Meter()
        for number in range(plan["count"]):
            await ws.send(payloads[number % len(payloads)])
        await ws.recv()
        report = meter.report(plan["count"], [ws])
        await ws.send(WORD)
        done.set_result(report)

    async def hold(ws):
        """The first connection of `compressed-held`."""
        await ws.recv()
        meter, before = Meter(), rss()
        await ws.send(WORD)
        await ws.recv()
        held = kib(before, await settled(), plan["connections"])
        await ws.send(WORD)
        done.set_result(meter.report(plan["connections"] - 1, [ws], held))

    async def handler(ws):
        nonlocal first
        begins, first = first, False
        if begins and "count" in plan:
            await push(ws)
        elif begins:
            await hold(ws)
        else:
            async for message in ws:
                await ws.send(message)

    deflate = ServerPerMessageDeflateFactory(**BITS, **SETTINGS)
    async with serve(handler, "127.0.0.1", 0, compression=None, extensions=[deflate]) as listening:
        host, port = listening.sockets[0].getsockname()
        say({"listening": f"{host}:{port}"})
        say({"report": await done})
        # The other connections end with the process.
        os._exit(0)


async def client(job: dict, address: str):
    plan, url = job["plan"], f"ws://{address}"

    def dial():
        deflate = ClientPerMessageDeflateFactory(**BITS, **SETTINGS)
        return connect(url, compression=None, extensions=[deflate], proxy=None)

    async with dial() as ws:
        assert ws.protocol.extensions, "the connection is not compressed"
        if "count" in plan:
            meter = Meter()
            await ws.send(WORD)
            expected = ticks(plan["size"])
            for number in range(plan["count"]):
                assert await ws.recv() == expected[number % len(expected)]
            report = meter.report(plan["count"], [ws])
        else:
            await ws.send(WORD)
            await ws.recv()
            meter, before, held = Meter(), rss(), []
            messages = ticks(plan["size"])
            for _ in range(1, plan["connections"]):
                one = await dial()
                for number in range(TICKS):
                    await one.send(messages[number % len(messages)])
                    assert len(await one.recv()) == plan["size"]
                held.append(one)
            await asyncio.sleep(plan["rest_ms"] / 1000)
            figures = kib(before, await settled(), plan["connections"])
            report = meter.report(plan["connections"] - 1, [ws], figures)
        await ws.send(WORD)
        await ws.recv()
        say({"report": report})
        # The other connections end with the process.
        os._exit(0)


def say(line: dict):
    print(json.dumps(line), flush=True)


def main():
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, {job["core"]})
    match job["role"]:
        case "server":
            asyncio.run(server(job))
        case {"client": {"server": address}}:
            asyncio.run(client(job, address))


main()
