#!/usr/bin/env python3
"""Writes the messages of a topic into a SQLite database, each exactly once.

    sqlite_consumer.py URL[,URL...] FILTER DATABASE

The message and the position behind it are written in one transaction. So whatever happens, the database
knows which messages it has: after a crash the program goes on behind the last one. It ends behind the final
message of a topic, or with Ctrl-C.
"""

from __future__ import annotations

import asyncio
import pathlib
import sqlite3
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "src"))

from unstall.topics import Delivery, Gap, Message, Topics

TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    log BLOB, offset INTEGER, topic TEXT, time INTEGER, data BLOB, PRIMARY KEY (log, offset));
CREATE TABLE IF NOT EXISTS gaps (reason TEXT, after INTEGER, through INTEGER);
CREATE TABLE IF NOT EXISTS positions (filter TEXT PRIMARY KEY, position TEXT);
"""


def write(database: sqlite3.Connection, pattern: str, deliveries: list[Delivery]) -> None:
    """Writes what was delivered and the position behind it, all or nothing."""
    messages = [d for d in deliveries if isinstance(d, Message)]
    gaps = [d for d in deliveries if isinstance(d, Gap)]
    with database:  # One transaction.
        database.executemany(
            "INSERT INTO messages VALUES (?, ?, ?, ?, ?)",
            [(m.log, m.offset, m.topic, m.time, m.data) for m in messages],
        )
        database.executemany(
            "INSERT INTO gaps VALUES (?, ?, ?)", [(g.reason, g.after, g.through) for g in gaps]
        )
        database.execute(
            "INSERT OR REPLACE INTO positions VALUES (?, ?)", (pattern, str(deliveries[-1].position))
        )


async def consume(urls: list[str], pattern: str, path: str) -> None:
    database = sqlite3.connect(path)
    try:
        database.executescript(TABLES)
        query = "SELECT position FROM positions WHERE filter = ?"
        saved = database.execute(query, (pattern,)).fetchone()
        async with Topics(urls) as topics:
            subscription = topics.subscribe(pattern, after=saved[0] if saved else None)
            while deliveries := await subscription.recv_batch():
                write(database, pattern, deliveries)
    finally:
        database.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        asyncio.run(consume(sys.argv[1].split(","), sys.argv[2], sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(130)
