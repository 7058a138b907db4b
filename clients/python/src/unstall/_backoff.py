"""When to connect again: full jitter, as the library in Rust has it."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: A connection that lasted this long (seconds) and had proved itself is made again without a wait.
AT_ONCE = 0.1
#: The longest wait, in seconds, that a server may ask for. An operator may mean a day; a year is a
#: mistake or malice.
LONGEST_ASKED = 86_400.0


@dataclass(frozen=True)
class Reconnect:
    """When and how often to connect again. All times are seconds.

    A connection has proved itself if it lived for `proof` and received something, or if it moved messages
    of a session. After its loss the first attempt does not wait. All other attempts wait for a random time
    between zero and a bound, which doubles from `first` to `longest` (full jitter). A wait that the server
    asks for is added to it.
    """

    first: float = 0.25
    longest: float = 30.0
    proof: float = 10.0
    #: Gives up after so many failed attempts in a row. None: never.
    attempts: int | None = None


class Backoff:
    """The waits between attempts."""

    def __init__(self, config: Reconnect) -> None:
        self._config = config
        self._waits = 0
        self._at_once = False

    def next(self, asked: float | None = None) -> float:
        """The next wait, in seconds."""
        at_once, self._at_once = self._at_once, False
        if at_once and asked is None:
            return 0.0
        bound = min(self._config.first * 2.0 ** min(self._waits, 20), self._config.longest)
        self._waits += 1
        return min(asked or 0.0, LONGEST_ASKED) + bound * random.random()

    def allows(self, failures: int) -> bool:
        """Whether another attempt may follow after so many failures in a row."""
        return self._config.attempts is None or failures < self._config.attempts

    def lived(self, lasted: float, received_any: bool, progressed: bool = False) -> None:
        """A connection ended. It lasted so long, perhaps received something, and perhaps moved messages
        of a session."""
        if progressed or (received_any and lasted >= self._config.proof):
            self._waits = 0
            self._at_once = lasted >= AT_ONCE
