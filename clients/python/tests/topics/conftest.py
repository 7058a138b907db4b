"""A hub for each test that asks for one."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from support import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    """With a log in memory."""
    one = Hub().start()
    yield one
    one.stop()


@pytest.fixture
def stored_hub(tmp_path: pathlib.Path) -> Iterator[Hub]:
    """With a log on disk."""
    one = Hub("--store", str(tmp_path / "log")).start()
    yield one
    one.stop()
