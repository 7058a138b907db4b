"""The proof client carries a topic over, whatever happens to its connections and to the hub."""

from __future__ import annotations

import asyncio
import pathlib
import sys

import pytest
from support import CutProxy, Hub, on_loop, publish_numbers, take

from unstall.topics import Topics

PROOF = pathlib.Path(__file__).resolve().parents[2] / "proof" / "topics.py"


async def carry_over(*urls: str) -> tuple[int | None, str]:
    """Runs the proof client. Gives its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROOF), ",".join(urls), stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


@pytest.mark.parametrize("seed", [1, 2, 3])
@on_loop
async def test_each_message_is_carried_over_once_through_cuts_and_a_kill(stored_hub: Hub, seed: int) -> None:
    count = 2_000
    payloads: list[str | bytes] = [*["x" * 20_000] * 20, b"", "grüße", b"\x00" * 70_000]
    async with (
        CutProxy(stored_hub.port, seed, (5_000, 120_000), 6) as one,
        CutProxy(stored_hub.port, seed + 100, (5_000, 120_000), 6) as other,
        Topics(stored_hub.url) as topics,
    ):
        carrying = asyncio.ensure_future(carry_over(one.url, other.url))
        await publish_numbers(topics, "verify.in", range(count // 2), pause=0.01)
        await topics.publish_many([("verify.in", payload) for payload in payloads])
        await stored_hub.restart()
        await publish_numbers(topics, "verify.in", range(count // 2, count), pause=0.01)
        await topics.publish("verify.in", "end", final=True)
        code, said = await carrying
        assert (code, said) == (0, f"{count + 24} messages carried over\n")
        got = await take(topics.subscribe("verify.out"), count + 24)
        sent = await take(topics.subscribe("verify.in"), count + 24)
    assert [(m.data, m.final) for m in got] == [(m.data, m.final) for m in sent]
    assert got[-1].final
    assert one.cut + other.cut > 3
