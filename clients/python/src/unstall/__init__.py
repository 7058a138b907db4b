"""WebSocket streams that never stall, never lose a message in silence, and never eat memory.

```python
import asyncio
import unstall


async def main():
    async with unstall.connect("wss://feed.example/stream") as session:
        await session.send("subscribe")
        async for message in session:
            print(message)


asyncio.run(main())
```

If the other end speaks sessions (`unstall.v1`), each message arrives once and in order, over any number of
lost connections. Credit bounds the memory of both sides. Any other WebSocket server works too: then a `Gap`
stands in the stream where messages may have been lost.
"""

from ._backoff import Reconnect
from ._dial import Attempt
from ._errors import (
    Closed,
    ConnectError,
    ConnectionLost,
    Error,
    MessageTooLarge,
    NotASession,
    Returned,
    SessionLost,
    Undelivered,
)
from ._events import (
    AttemptFailed,
    Connected,
    Disconnected,
    Ended,
    Event,
    Gap,
    GoAway,
    Missed,
    PeerClosing,
    Reconnecting,
    Resumed,
    SessionEnded,
    SessionNotSpoken,
    SessionOpened,
    Stats,
    UndeliveredDropped,
)
from ._options import Setup
from ._session import CloseReport, Connect, Position, Session, connect
from .topics import Topics

__all__ = [
    "Attempt",
    "AttemptFailed",
    "CloseReport",
    "Closed",
    "Connect",
    "ConnectError",
    "Connected",
    "ConnectionLost",
    "Disconnected",
    "Ended",
    "Error",
    "Event",
    "Gap",
    "GoAway",
    "MessageTooLarge",
    "Missed",
    "NotASession",
    "PeerClosing",
    "Position",
    "Reconnect",
    "Reconnecting",
    "Resumed",
    "Returned",
    "Session",
    "SessionEnded",
    "SessionLost",
    "SessionNotSpoken",
    "SessionOpened",
    "Setup",
    "Stats",
    "Topics",
    "Undelivered",
    "UndeliveredDropped",
    "connect",
]
