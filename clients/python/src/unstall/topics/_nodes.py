"""The addresses of a client, and which one is next."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from .._backoff import LONGEST_ASKED, Backoff, Reconnect
from .._core.topics.events import Rejected
from .._dial import Target
from .._errors import ConnectError


@dataclass
class Node:
    """An address, and what is known of it."""

    target: Target
    #: It asked to be left alone until then.
    rests: float = 0.0
    #: The token that it rejected last.
    rejected: str | None = None
    #: Nothing that the client can do will change its answer.
    hopeless: bool = False


class Nodes:
    """Goes from one address to the next, with waits in between."""

    def __init__(self, targets: Sequence[Target], reconnect: Reconnect, renews: bool) -> None:
        self.nodes = [Node(target) for target in targets]
        self._at = random.randrange(len(self.nodes))
        self._backoff, self._renews = Backoff(reconnect), renews
        #: Attempts in a row that no node welcomed.
        self.failures = 0

    @property
    def present(self) -> Node:
        return self.nodes[self._at]

    async def next(self) -> Node:
        """The next address that may be asked. It waits if all of them asked to be left alone."""
        now = asyncio.get_running_loop().time()
        count = len(self.nodes)
        turns = [(self._at + 1 + step) % count for step in range(count)]
        self._at = min(turns, key=lambda node: max(0.0, self.nodes[node].rests - now))
        await asyncio.sleep(max(0.0, self.present.rests - now))
        return self.present

    def lived(self, lasted: float, received_any: bool, progressed: bool) -> None:
        """The present node welcomed the client, and later the connection ended. It perhaps brought
        messages or answers."""
        self.failures = 0
        self._backoff.lived(lasted, received_any, progressed)
        self.present.hopeless, self.present.rejected = False, None

    def rejected(self, reject: Rejected, token: str) -> None:
        self.failures += 1
        self._rest(reject.retry_after / 1000)
        if reject.reason == "not allowed":
            same, self.present.rejected = self.present.rejected == token, token
            self.present.hopeless = same or not self._renews

    def failed(self, error: ConnectError) -> None:
        self.failures += 1
        self._rest(error.retry_after or 0.0)
        self.present.hopeless = not error.retryable

    def _rest(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self.present.rests = now + min(seconds, LONGEST_ASKED)

    def wait(self) -> float | None:
        """How long to wait before the next attempt. None: there is to be none."""
        if all(node.hopeless for node in self.nodes) or not self._backoff.allows(self.failures + 1):
            return None
        return self._backoff.next()
