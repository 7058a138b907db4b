"""`unstall verify --client` breaks the network and the server of the client in proof/echo.py, and counts."""

from __future__ import annotations

import json
import pathlib
import shlex
import subprocess
import sys

import pytest

from harness import binary

ECHO = pathlib.Path(__file__).resolve().parent.parent / "proof/echo.py"


def verdict(client: str, faults: str, seed: int) -> dict[str, object]:
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(ECHO))} {client}{{url}}"
    amount = ["--count", "8000", "--rate", "2000", "--times", "12", "--seed", str(seed)]
    arguments = [binary(), "verify", "--client", command, "--faults", faults, "--json", *amount]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    assert result["lost"] == result["duplicated"] == result["reordered"] == result["corrupted"] == 0, result
    return result


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sessions_keep_every_promise(seed: int) -> None:
    verdict("", "cut,freeze,delay,refuse,slow,restart", seed)


def test_sessions_that_acknowledge_by_hand_keep_every_promise() -> None:
    verdict("--by-hand ", "cut,kill", 1)
