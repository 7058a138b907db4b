"""From a URL to an open WebSocket."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from websockets.asyncio.client import connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
    ProxyError,
)
from websockets.http11 import Response
from websockets.typing import Subprotocol

from ._backoff import LONGEST_ASKED
from ._errors import ConnectError, said
from ._link import WRITE_BUFFER, Link
from ._text import redacted

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt:
    """An attempt to connect, as the functions for headers see it."""

    #: The number of the attempt since the connection was lost, from 1.
    number: int
    #: Why the attempt before failed, if there was one.
    last_error: ConnectError | None = None


Token = str | Callable[[], "str | Awaitable[str]"]
Headers = Mapping[str, str] | Callable[[Attempt], "Mapping[str, str] | Awaitable[Mapping[str, str]]"]


@dataclass(frozen=True)
class Target:
    """Where to connect to, and how."""

    url: str
    token: Token | None = None
    headers: Headers | None = None
    origin: str | None = None
    proxy: str | Literal[True] | None = True
    ssl: ssl.SSLContext | None = None
    connect_timeout: float = 10.0


async def dial(target: Target, subprotocols: Sequence[str], max_message: int, attempt: Attempt) -> Link:
    """Opens a WebSocket. Raises `ConnectError`.

    If it is cancelled, no connection stays behind.
    """
    headers = await headers_of(target, attempt)
    options: dict[str, Any] = {} if target.ssl is None else {"ssl": target.ssl}
    try:
        connection = await connect(
            target.url,
            origin=target.origin,  # type: ignore[arg-type]
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            compression=None,
            additional_headers=headers,
            user_agent_header="unstall-python",
            proxy=target.proxy,
            open_timeout=target.connect_timeout,
            ping_interval=None,
            max_size=max_message,
            write_limit=WRITE_BUFFER,
            create_connection=Link,
            **options,
        )
    except Exception as error:
        raise from_websockets(error, target) from cause_of(error)
    assert isinstance(connection, Link)
    return connection


async def headers_of(target: Target, attempt: Attempt) -> dict[str, str]:
    """The headers of this attempt: made anew if a function makes them."""
    try:
        headers = target.headers
        if callable(headers):
            headers = await within(target.connect_timeout, headers(attempt))
        found = dict(headers or {})
        token = target.token
        if callable(token):
            token = await within(target.connect_timeout, token())
    except Exception as error:
        what = "the function that supplies the token or the headers failed"
        raise ConnectError(what, retryable=True) from error
    if token is not None:
        found = {name: value for name, value in found.items() if name.lower() != "authorization"}
        found["Authorization"] = f"Bearer {token}"
    for name, value in found.items():
        if not is_header(name, value):
            raise ConnectError(
                f"the request header {name!r} cannot be sent: it has a character that headers must "
                "not have, or the handshake sets it; correct it",
                retryable=False,
            )
    return found


OWN_HEADERS = ("host", "upgrade", "connection")


def is_header(name: str, value: str) -> bool:
    """Whether this can be sent as a header."""
    plain = name.isascii() and all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name)
    own = name.lower() in OWN_HEADERS or name.lower().startswith("sec-websocket-")
    return bool(name) and plain and not own and all(c == "\t" or " " <= c <= "\xff" for c in value)


async def within(seconds: float, value: T | Awaitable[T]) -> T:
    """The value, once it is there, if that is soon enough. Raises `TimeoutError`."""
    if not isinstance(value, Awaitable):
        return value
    task: asyncio.Future[T] = asyncio.ensure_future(value)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise TimeoutError(f"it took longer than {seconds:g} s")
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def cause_of(error: Exception) -> Exception | None:
    """What may be told as the cause: these have a URL, perhaps with a password, in their text."""
    return None if isinstance(error, InvalidURI | InvalidProxy) else error


def from_websockets(error: Exception, target: Target) -> ConnectError:
    """What happened, and whether another attempt may help."""
    url = redacted(target.url)
    if isinstance(error, ssl.SSLError):  # One of its kinds is a ValueError too.
        return of_socket(error, target, url)
    if isinstance(error, InvalidURI | InvalidProxy | ValueError | ImportError):
        return unusable(error, url)
    if isinstance(error, InvalidStatus):
        return refused(error.response, url)
    if isinstance(error, InvalidProxyStatus):
        status = error.response.status_code
        why = f"the proxy refused the connection to {url} with status {status}"
        advice = "check the proxy's credentials and rules"
        return ConnectError(f"{why}; {advice}", retryable=is_passing(status), status=status)
    if isinstance(error, ProxyError):
        why = f"the proxy did not connect to {url}; check that it runs and can be reached"
        return ConnectError(why, retryable=True)
    if isinstance(error, NegotiationError):
        why = f"{url} chose a subprotocol that was not offered, or an unknown extension"
        return ConnectError(f"{why}: check what the server supports", retryable=False)
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError | OSError):
        why = f"the connection to {url} was lost during the WebSocket handshake"
        return ConnectError(why, retryable=True)
    if isinstance(error, InvalidHandshake):
        why = f"{url} did not complete the WebSocket handshake{said(str(error))}"
        return ConnectError(f"{why}; check the URL, and any proxies in between", retryable=False)
    return of_socket(error, target, url)


def unusable(error: Exception, url: str) -> ConnectError:
    if isinstance(error, InvalidProxy):
        why = "the URL of the proxy cannot be used; correct it, or pass proxy=None"
    elif isinstance(error, ImportError):
        why = "a SOCKS proxy needs the package python-socks: pip install 'python-socks[asyncio]'"
    else:
        why = f"the URL {url} cannot be dialed; it begins with ws:// or wss:// and has no fragment"
    return ConnectError(why, retryable=False)


def of_socket(error: Exception, target: Target, url: str) -> ConnectError:
    if isinstance(error, TimeoutError):
        why = f"connecting to {url} took longer than {target.connect_timeout:g} s"
        return ConnectError(why, retryable=True)
    if isinstance(error, ssl.SSLError):
        why = f"the TLS handshake with {url} failed{said(error.reason or str(error))}"
        advice = "check the certificate, and that the port speaks TLS"
        passing = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        return ConnectError(f"{why}; {advice}", retryable=passing)
    if isinstance(error, socket.gaierror):
        why = f"the host of {url} could not be resolved; check its spelling and the DNS server"
        return ConnectError(why, retryable=True)
    if isinstance(error, OSError | EOFError):
        why = f"no connection to {url} ({getattr(error, 'strerror', None) or error})"
        advice = "check that a server listens there and can be reached"
        return ConnectError(f"{why}; {advice}", retryable=True)
    return ConnectError(f"connecting to {url} failed: {type(error).__name__}", retryable=False)


def is_passing(status: int) -> bool:
    """Status codes of conditions that may pass (RFC 9110 section 15, RFC 6585 section 4)."""
    return status in (408, 425, 429) or 500 <= status < 600


def refused(response: Response, url: str) -> ConnectError:
    status, asked = response.status_code, retry_after(response)
    why = f"{url} refused the WebSocket with status {status}"
    if asked is not None:
        why += f"; it asks to wait {asked:g} s"
    elif status in (401, 403):
        why += "; check the token and the Origin header"
    elif status in (404, 405, 410, 426):
        why += "; check the URL's path"
    return ConnectError(why, retryable=is_passing(status), status=status, retry_after=asked)


def retry_after(response: Response) -> float | None:
    """The wait in `Retry-After`, in either of its forms (RFC 9110 section 10.2.3), cut to the longest."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), LONGEST_ASKED)
    try:
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(at - time.time(), 0.0), LONGEST_ASKED)
