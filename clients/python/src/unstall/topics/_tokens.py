"""The tokens of a client. They are secrets: nothing here prints one."""

from __future__ import annotations

import asyncio
import base64
import json
import time

from .._core.topics.packet import MAX_TOKEN
from .._dial import Token, within
from .._errors import ConnectError

#: How long the application's function may take, in seconds: as long as a handshake.
TOKEN_TIMEOUT = 10.0
#: A new token is fetched this long (seconds) before the present one expires, or when a fifth of its life
#: is left if that is later. A minute covers a slow answer and clocks that differ.
EARLY = 60.0
#: How long to wait after a failure before the function is asked again, in seconds.
AGAIN = 5.0


class Tokens:
    """Where tokens come from."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    @property
    def are_renewed(self) -> bool:
        """Each connection has a token of its own."""
        return callable(self._token)

    async def next(self) -> str:
        """The token for the next connection. Raises `ConnectError`."""
        if not callable(self._token):
            return checked(self._token or "")
        try:
            return checked(await within(TOKEN_TIMEOUT, self._token()))
        except Exception as error:
            raise ConnectError("the function that gives the token failed", retryable=True) from error


def checked(token: object) -> str:
    """The token, if it can be sent. Raises `ConnectError` without printing it."""
    if not isinstance(token, str) or len(token) > MAX_TOKEN or not all("!" <= c <= "~" for c in token):
        raise ConnectError(
            f"the token cannot be sent; it is a str of at most {MAX_TOKEN} visible ASCII characters",
            retryable=False,
        )
    return token


def renew_in(token: str) -> float | None:
    """In how many seconds a new token should be fetched, if this one says when it expires."""
    expires = expiry_of(token)
    if expires is None:
        return None
    left = expires - time.time()
    return max(left - EARLY, left * 0.8, 0.0)


def expiry_of(token: str) -> float | None:
    """When a JSON Web Token expires, in seconds since 1970. None if it does not say. Nothing is
    verified: the node does that."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = claims.get("exp") if isinstance(claims, dict) else None
        return float(expires) if isinstance(expires, int | float) else None
    except (ValueError, OverflowError):
        return None


async def pause(seconds: float) -> None:
    """Waits; a wait may be longer than a timer takes."""
    while seconds > 0:
        step = min(seconds, 86_400.0)
        await asyncio.sleep(step)
        seconds -= step
