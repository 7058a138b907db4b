"""The programs in README.md run as they stand there."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import re
from collections.abc import Callable
from typing import Any

import unstall
from harness import Serve

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
FEED = "wss://feed.example/stream"


def block(word: str) -> str:
    """The one program that has this in it."""
    (found,) = [text for text in BLOCKS if word in text]
    return str(found)


def run_until_message(program: str, url: str, capsys: Any) -> None:
    """The programs print messages for ever: the first one stops them."""
    printed: list[object] = []

    class Enough(Exception):
        pass

    def show(*words: object) -> None:
        printed.extend(words)
        raise Enough

    with contextlib.suppress(Enough):
        exec(compile(program.replace(FEED, url), "README.md", "exec"), {"print": show})
    assert printed == ["subscribe"]


def test_the_first_program_receives(serve: Serve, capsys: Any) -> None:
    run_until_message(block("import asyncio\nimport unstall\n"), serve.url + "/echo", capsys)


def test_the_program_without_asyncio_receives(serve: Serve, capsys: Any) -> None:
    run_until_message(block("from unstall.sync import connect"), serve.url + "/echo", capsys)


def test_the_functions_do_what_the_text_says(serve: Serve, run: Callable[..., Any], capsys: Any) -> None:
    stored: list[object] = []

    async def store(message: object) -> None:
        stored.append(message)
        if len(stored) == 10:
            raise asyncio.CancelledError

    names: dict[str, Any] = {"unstall": unstall, "store": store, "fetch_token": lambda: "token"}
    for word in ("async def transfer", "async def consume", "async def subscriber"):
        exec(compile(block(word), "README.md", "exec"), names)

    async def main() -> None:
        async with unstall.connect(serve.url + "/sink") as session:
            await names["transfer"](session)
            assert session.stats().unacknowledged_bytes == 0

        async def greet(setup: unstall.Setup) -> None:
            for number in range(10):
                setup.send(str(number))

        def connect(url: str, **settings: Any) -> Any:
            return unstall.connect(url, on_connect=greet, **settings)

        names["unstall"] = type("unstall", (), {"connect": staticmethod(connect)})
        consuming = asyncio.ensure_future(names["consume"](serve.url + "/echo"))
        await asyncio.wait({consuming})
        assert stored == [str(number) for number in range(10)]
        await names["subscriber"](serve.url + "/echo")
        assert capsys.readouterr().out == "0\n"

    run(main())
