"""Two hubs that share a log in NATS."""

from __future__ import annotations

import asyncio
import pathlib
import re
import subprocess
import time
from collections.abc import Iterator

import pytest
from support import CHECKOUT, Hub, numbers_of, on_loop, publish_numbers, take, until

from unstall import Reconnect
from unstall.topics import Connected, Event, Topics

#: What `.ci/nats-server` installs.
PROGRAM = CHECKOUT / "target" / "nats-server" / "nats-server"
QUICK = Reconnect(first=0.01, longest=0.2)


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[str]:
    """The address of a log in a server of NATS."""
    # At port -1 it takes a free one, and its log says which.
    arguments = ["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir", str(tmp_path)]
    log = tmp_path / "nats.log"
    with log.open("w") as output, subprocess.Popen([PROGRAM, *arguments], stderr=output) as server:
        try:
            while "Server is ready" not in (told := log.read_text()):
                assert server.poll() is None, told
                time.sleep(0.01)
            found = re.search(r"Listening for client connections on .*:(\d+)", told)
            assert found, told
            yield f"nats://127.0.0.1:{found[1]}/LOG"
        finally:
            server.kill()


@pytest.mark.skipif(not PROGRAM.exists(), reason="there is no nats-server: .ci/nats-server installs it")
@on_loop
async def test_of_two_hubs_over_one_nats_one_is_killed_in_mid_stream_and_nothing_is_lost(store: str) -> None:
    count = 6_000
    hubs = [Hub("--store", store).start(), Hub("--store", store).start()]
    nodes: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Connected):
            nodes.append(event.url)

    try:
        async with Topics([hub.url for hub in hubs], reconnect=QUICK, on_event=note) as topics:
            reading = asyncio.ensure_future(take(topics.subscribe("t"), count))
            publishing = asyncio.ensure_future(publish_numbers(topics, "t", range(count)))
            await until(lambda: topics.stats().stored > 1_000)
            # The one that the client uses, with messages on their way.
            next(hub for hub in hubs if hub.url == nodes[-1]).kill()
            await publishing
            assert numbers_of(await reading) == list(range(count))
            assert len(set(nodes)) == 2
            assert topics.stats().stored == count
        # Another client at the hub that is left reads the same.
        async with Topics(nodes[-1]) as left:
            assert numbers_of(await take(left.subscribe("t"), count)) == list(range(count))
    finally:
        for hub in hubs:
            hub.stop()
