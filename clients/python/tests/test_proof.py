"""`unstall verify --client` breaks the network and the server of the client in proof/, and counts."""

from __future__ import annotations

import json
import pathlib
import shlex
import subprocess
import sys

import pytest

from harness import binary

PROOF = pathlib.Path(__file__).resolve().parent.parent / "proof"


def verdict(kind: list[str], client: str, faults: str, seed: int) -> dict[str, object]:
    program, *options = client.split()
    command = shlex.join([sys.executable, str(PROOF / program), *options]) + " {url}"
    amount = ["--count", "8000", "--rate", "2000", "--times", "12", "--seed", str(seed)]
    arguments = [binary(), "verify", *kind, "--client", command, "--faults", faults, "--json", *amount]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    assert result["lost"] == result["duplicated"] == result["reordered"] == result["corrupted"] == 0, result
    return result


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sessions_keep_every_promise(seed: int) -> None:
    verdict([], "echo.py", "cut,freeze,delay,refuse,slow,restart", seed)


def test_sessions_that_acknowledge_by_hand_keep_every_promise() -> None:
    verdict([], "echo.py --by-hand", "cut,kill", 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_topics_keep_every_promise(seed: int) -> None:
    verdict(["--topics"], "topics.py", "cut,freeze,restart,kill", seed)
