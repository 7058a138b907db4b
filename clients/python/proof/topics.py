#!/usr/bin/env python3
"""The client that `unstall verify --topics --client` proves: it carries topic `verify.in` over to topic
`verify.out`, each message once and in order, and ends behind the final one.

    topics.py URL[,URL...]

A gap, or a message that is not stored or may not be, is told on standard error and ends it with exit
code 1.
"""

from __future__ import annotations

import asyncio
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "src"))

from unstall._backoff import Reconnect
from unstall.topics import Message, PublishError, Topics

#: The proxy of `verify` breaks connections all the time, so waits need not grow long.
RECONNECT = Reconnect(first=0.02, longest=1.0)

#: These of a node pass. Nothing is stored, so the same messages may be published again.
PASSING = ("full", "unavailable")


class Broken(Exception):
    """A promise was broken."""


async def carry_over(urls: list[str]) -> int:
    """Gives how many messages there were."""
    count = 0
    async with Topics(urls, reconnect=RECONNECT, ping_interval=0.5, silence_timeout=2.0) as topics:
        subscription = topics.subscribe("verify.in", start="beginning")
        while deliveries := await subscription.recv_batch():
            messages = []
            for delivery in deliveries:
                if not isinstance(delivery, Message):
                    raise Broken(f"a gap, messages are missing: {delivery}")
                messages.append(delivery)
            await store(topics, messages)
            count += len(messages)
    return count


async def store(topics: Topics, messages: list[Message]) -> None:
    """Publishes messages, and waits until all are stored."""
    while messages:
        results = await topics.publish_many([("verify.out", m.data, m.final) for m in messages])
        failed = [result for result in results if isinstance(result, PublishError)]
        if not failed:
            return
        rest = results[-len(failed) :]
        may_pass = all(error.reason in PASSING and not error.may_be_stored for error in failed)
        if not may_pass or not all(isinstance(result, PublishError) for result in rest):
            raise Broken(f"a message is not stored in its place: {failed[0]}")
        messages = messages[-len(failed) :]
        await asyncio.sleep(0.1)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        count = asyncio.run(carry_over(sys.argv[1].split(",")))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{count} messages carried over", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
