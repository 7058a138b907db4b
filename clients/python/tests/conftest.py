"""The fixtures of all tests."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import Serve, until


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    server = Serve()
    yield server
    server.kill()


@pytest.fixture
def own_serve() -> Iterator[Callable[..., Serve]]:
    """Starts servers of the test's own."""
    servers: list[Serve] = []

    def start(*arguments: str) -> Serve:
        servers.append(Serve(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def run() -> Callable[..., Any]:
    """Runs a coroutine, and checks that it leaves no task and no error behind."""

    def run_one(work: Coroutine[Any, Any, Any], within: float = 60.0) -> Any:
        complaints: list[str] = []

        async def watched() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
            result = await asyncio.wait_for(work, within)
            await until(lambda: len(asyncio.all_tasks()) == 1, "tasks were left behind", 2.0)
            gc.collect()
            await asyncio.sleep(0)
            return result

        result = asyncio.run(watched())
        gc.collect()
        assert complaints == []
        return result

    return run_one


@pytest.fixture
def seeds() -> list[int]:
    """The seeds of a test that draws: `UNSTALL_SEED` is one, else a few."""
    seed = os.environ.get("UNSTALL_SEED")
    return [int(seed)] if seed else [1, 2, 3]
