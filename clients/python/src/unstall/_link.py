"""One open WebSocket as a pipe of messages: what sessions, plain connections and topics run over.

It is driven by calls, not by tasks: a message is handed over in the moment in which its bytes arrive, and
`write` does so at once. So nothing lies in between that a cancelled task could lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from ._errors import ConnectionLost, said

logger = logging.getLogger("unstall")

#: How long the peer's FIN is awaited after the closing handshake, in seconds. An earlier reset could
#: destroy the last bytes on their way.
LINGER = 1.0
#: Bytes that wait unsent in this process before `is_full`: several packets, so that the socket never runs
#: dry. More would only be older when they leave.
WRITE_BUFFER = 128 << 10

DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Link(ClientConnection):
    """One WebSocket connection.

    `on_message` is called with each message, text as `str` and binary as `bytes`; `on_room` when `is_full`
    has ended. Neither is called after the link is lost. `lost` is a future; its result says why.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lost: asyncio.Future[ConnectionLost] = self.loop.create_future()
        #: When bytes arrived last, and how many arrived in all.
        self.heard = self.loop.time()
        self.bytes_received = 0
        #: Frames that arrived: the peer speaks WebSocket.
        self.frames = 0
        #: The application asked not to read: silence is then no sign of death.
        self.is_reading = True
        self._on_message: Callable[[str | bytes], None] | None = None
        self._on_room: Callable[[], None] | None = None
        self._early: list[str | bytes] = []
        self._parts: list[bytes] = []
        self._is_text = False
        self._why: ConnectionLost | None = None
        self._linger: asyncio.TimerHandle | None = None

    # ---- Messages ----

    def listen(self, on_message: Callable[[str | bytes], None], on_room: Callable[[], None]) -> None:
        """Begins to hand over what arrives, and what has arrived already."""
        self._on_message, self._on_room = on_message, on_room
        early, self._early = self._early, []
        for message in early:
            self._hand_over(message)
        if self.is_reading:
            self.transport.resume_reading()

    def deafen(self) -> None:
        """What arrives from now on is dropped."""
        self._on_message = self._on_room = _nothing

    def limit(self, max_message: int) -> None:
        """Refuses longer messages from now on, while they arrive."""
        for name in ("max_message_size", "max_size"):
            if hasattr(self.protocol, name):
                setattr(self.protocol, name, max_message)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        # After a failed write the transport is closing, and `lost` is done a turn later. asyncio warns of
        # writes in between.
        is_open = self.protocol.state is State.OPEN and not self.lost.done()
        return is_open and not self.transport.is_closing()

    @property
    def is_full(self) -> bool:
        """Whether what was sent waits for the peer to read. `on_room` tells the end of it."""
        return self.paused

    def write(self, message: str | bytes) -> None:
        """Sends a message. If the link is not open, it does nothing: `lost` tells."""
        if not self.is_open:
            return
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self._flush()

    def write_all(self, messages: Iterable[str | bytes]) -> None:
        """Sends many messages with one call of the system."""
        if not self.is_open:
            return
        for message in messages:
            if isinstance(message, str):
                self.protocol.send_text(message.encode())
            else:
                self.protocol.send_binary(message)
        self.transport.write(b"".join(self.protocol.data_to_send()))

    def write_ping(self) -> None:
        """Sends a ping of WebSocket. The answer counts as life."""
        if self.is_open:
            self.protocol.send_ping(b"")
            self._flush()

    def pause(self) -> None:
        """Stops to read. What has arrived with the last bytes is still handed over."""
        self.is_reading = False
        self.transport.pause_reading()

    def resume(self) -> None:
        """Reads again."""
        if not self.is_reading:
            self.is_reading = True
            self.heard = self.loop.time()
            self.transport.resume_reading()

    def _flush(self) -> None:
        try:
            self.send_data()
        except Exception as error:
            self.abort(ConnectionLost(f"the socket failed: {error}"))

    # ---- The end ----

    def abort(self, why: ConnectionLost) -> None:
        """Ends the connection at once."""
        self._why = self._why or why
        self.transport.abort()

    def drop(self, why: ConnectionLost) -> None:
        """What arrives does not matter any more. The peer has a moment to read what was written."""
        self._why = self._why or why
        if self._linger is None and not self.lost.done():
            self._linger = self.loop.call_later(LINGER, self.transport.abort)

    def write_close(self, code: int = 1000, reason: str = "") -> None:
        """Begins the closing handshake."""
        if self.protocol.state is State.OPEN:
            with contextlib.suppress(WebSocketException):
                self.protocol.send_close(code, reason)
            self._flush()

    async def end(self, code: int, reason: str, within: float) -> None:
        """The closing handshake, and then the end, after so many seconds at most."""
        try:
            self.write_close(code, reason)
            await asyncio.wait({self.lost}, timeout=within)
        finally:
            self.transport.abort()

    async def watch(self, ping_interval: float | None, silence_timeout: float) -> ConnectionLost:
        """Pings the peer until the connection is lost, and ends it if nothing arrives for too long."""
        step = min(ping_interval or silence_timeout, silence_timeout)
        next_ping = self.loop.time() + step
        while not self.lost.done():
            now = self.loop.time()
            silent_at = self.heard + silence_timeout if self.is_reading else now + silence_timeout
            until = min(next_ping, silent_at)
            await asyncio.wait({self.lost}, timeout=max(until - now, 0.001))
            now = self.loop.time()
            if now - until > silence_timeout / 4:
                # This program was busy, and has asked the peer nothing for as long.
                self.heard, next_ping = now, now
            if self.is_reading and now - self.heard >= silence_timeout:
                silence = f"nothing was received from the peer for {silence_timeout:g} s"
                self.abort(ConnectionLost(f"{silence}: the peer or the network has failed"))
                return await self.lost
            if now >= next_ping:
                next_ping = now + step
                if ping_interval is not None:
                    self.write_ping()
        return self.lost.result()

    # ---- Calls of websockets and asyncio ----

    def process_event(self, event: Event) -> None:
        if self.response is None:
            super().process_event(event)
        elif isinstance(event, Frame):
            self.frames += 1
            if event.opcode in DATA:
                self._process_frame(event)

    def _process_frame(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                return self._finish(frame.data)
        if frame.data:  # Floods of empty fragments must not take memory.
            self._parts.append(bytes(frame.data))
        if frame.fin:
            parts, self._parts = self._parts, []
            self._finish(b"".join(parts))
        return None

    def _finish(self, data: Any) -> None:
        if not self._is_text:
            return self._hand_over(bytes(data))
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError:
            self.protocol.fail(1007, "not UTF-8")
            self._flush()
            return self.abort(ConnectionLost("the peer sent a text message that is not UTF-8"))
        return self._hand_over(text)

    def _hand_over(self, message: str | bytes) -> None:
        if self._why is not None:
            return
        if self._on_message is None:
            self._early.append(message)
            self.transport.pause_reading()
            return
        try:
            self._on_message(message)
        except Exception as error:
            logger.exception("a received message could not be processed")
            self.abort(ConnectionLost(f"an internal error: {error!r}"))

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        self.bytes_received += len(data)
        super().data_received(data)
        if self._linger is None and self.protocol.state is not State.OPEN and self.response:
            self._linger = self.loop.call_later(LINGER, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._on_room is not None and not self.lost.done():
            self._on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._linger is not None:
            self._linger.cancel()
        self._on_message = self._on_room = _nothing
        if not self.lost.done():
            self.lost.set_result(self._why or self._reason(exc))

    def _reason(self, exc: Exception | None) -> ConnectionLost:
        close = self.protocol.close_rcvd
        if close is not None:
            code = f"the peer closed the connection with code {int(close.code)}"
            return ConnectionLost(code + said(close.reason), code=int(close.code), reason=close.reason)
        broken = self.protocol.parser_exc
        if broken is not None and not isinstance(broken, EOFError):
            return ConnectionLost(f"the peer broke the WebSocket protocol{said(str(broken))}")
        if exc is not None:
            return ConnectionLost(f"the socket failed: {exc}")
        return ConnectionLost("the peer ended the TCP connection without closing the WebSocket")


def _nothing(*_: Any) -> None:
    pass
