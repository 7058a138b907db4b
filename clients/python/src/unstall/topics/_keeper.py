"""Keeps a client connected, and carries packets between its core and the connection.

Everything runs on one event loop, without locks. Packets are handled in the moment in which they arrive.
What is to be sent goes out in one call at the end of the loop's turn, so that messages that are published
in one turn share packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from .._backoff import Reconnect
from .._core.topics.client import Client
from .._core.topics.events import Aborted, GoAway, Refusal, Rejected, Stored, Unknown, Welcomed
from .._core.topics.packet import MAX_PACKET
from .._dial import Attempt, Target, dial
from .._errors import ConnectError, ConnectionLost
from .._link import Link
from .._text import printable, redacted
from ._answers import Answers
from ._nodes import Node, Nodes
from ._tokens import AGAIN, Tokens, pause, renew_in
from .events import Connected, Disconnected, Event, TokenFailed

logger = logging.getLogger("unstall")

SUBPROTOCOL = "unstall.topics.v1"
#: How long a connection is given for the closing handshake when the client goes to another node, in
#: seconds. Nothing depends on it.
CLOSE_TIMEOUT = 1.0
#: A node that asks a client to go elsewhere may name a time up to a day, in milliseconds.
LONGEST_GO_AWAY = 86_400_000
EXPIRED = "the token has expired"


class Keeper:
    """One client. `run` is its task."""

    def __init__(
        self,
        core: Client,
        targets: Sequence[Target],
        tokens: Tokens,
        reconnect: Reconnect,
        liveness: tuple[float | None, float],
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self.core, self.tokens, self.liveness = core, tokens, liveness
        self.nodes = Nodes(targets, reconnect, tokens.are_renewed)
        self.answers = Answers()
        self.on_event = on_event
        self.loop = asyncio.get_running_loop()
        #: What wakes the reader of each subscription.
        self.readers: dict[int, Callable[[], None]] = {}
        #: What wakes the publisher that waits for room, and whoever waits for all answers.
        self.on_room: Callable[[], None] | None = None
        self.on_answered: Callable[[], None] | None = None
        #: Why the client has ended.
        self.ended: str | None = None
        self.connections = 0
        self._link: Link | None = None
        #: Why the present connection is to be left.
        self._leave: asyncio.Future[str] | None = None
        self._close_code = 1000
        self._rejected: Rejected | None = None
        self._was_welcomed = False
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._go_away: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """The core counts in milliseconds."""
        return self.loop.time() * 1000

    # The task.

    async def run(self) -> None:
        """Connects, and connects again, until there is no more sense in it."""
        why = "it was closed"
        try:
            while True:
                why = await self._once()
                wait = self.nodes.wait()
                self._tell(Disconnected(why, wait))
                if wait is None:
                    return
                await asyncio.sleep(wait)
        except asyncio.CancelledError:
            why = "it was closed"
            raise
        except Exception as error:
            why = f"an internal error: {error!r}"
            logger.exception("the client of topics has failed")
        finally:
            self.end(why)

    async def _once(self) -> str:
        """One attempt, and one connection if it succeeds. Gives why it ended."""
        node = await self.nodes.next()
        try:
            token = await self.tokens.next()
            link = await self._dial(node)
        except ConnectError as error:
            self.nodes.failed(error)
            return str(error)
        began, progress = self.loop.time(), self.core.progress
        try:
            why = await self._carry(link, token)
        finally:
            self._detach(link)
        if self._rejected is not None:
            self.nodes.rejected(self._rejected, token)
            said = f" ({printable(self._rejected.text)})" if self._rejected.text else ""
            return f"the node rejects the client: {self._rejected.reason}{said}"
        # A node that breaks the protocol would do it again, so it earns no quick return.
        is_broken = self._close_code != 1000
        progressed = self.core.progress > progress and not is_broken
        lasted = self.loop.time() - began
        self.nodes.lived(lasted, self._was_welcomed and not is_broken, progressed)
        return why

    async def _dial(self, node: Node) -> Link:
        link = await dial(node.target, [SUBPROTOCOL], MAX_PACKET, Attempt(self.nodes.failures + 1))
        if link.subprotocol == SUBPROTOCOL:
            return link
        link.abort(ConnectionLost("it does not speak topics"))
        url = redacted(node.target.url)
        raise ConnectError(f"{url} does not speak topics; use the address of a node", retryable=False)

    async def _carry(self, link: Link, token: str) -> str:
        """Carries packets until the connection is lost or is to be left. Gives why."""
        self._link, self._rejected, self._was_welcomed = link, None, False
        self._leave, self._close_code = self.loop.create_future(), 1000
        self.core.attach(self.now(), token)
        tasks: list[asyncio.Task[ConnectionLost]] = [self.loop.create_task(link.watch(*self.liveness))]
        if self.tokens.are_renewed:
            tasks.append(self.loop.create_task(self._renew(token)))
        try:
            # HELLO goes out before anything is heard.
            self._flush()
            link.listen(self._on_message, self._flush)
            ends: set[asyncio.Future[Any]] = {tasks[0], self._leave}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not self._leave.done():
                return str(tasks[0].result())
            # What has no answer is sent again elsewhere, so nothing more has to be received.
            self._send()
            link.deafen()
            await link.end(self._close_code, "", CLOSE_TIMEOUT)
            return self._leave.result()
        finally:
            for task in tasks:
                task.cancel()
            await ended(tasks)

    async def _renew(self, token: str) -> ConnectionLost:
        """Replaces the token in time, as long as the connection lives."""
        wait = renew_in(token)
        while wait is not None:
            await pause(wait)
            try:
                token = await self.tokens.next()
            except ConnectError as error:
                self._tell(TokenFailed(str(error.__cause__ or error)))
                wait = AGAIN
                continue
            self.core.set_token(token)
            self.flush()
            # A token that has expired already is not asked for in a tight loop.
            wait = renew_in(token)
            wait = None if wait is None else max(wait, AGAIN)
        never: asyncio.Future[ConnectionLost] = self.loop.create_future()
        return await never

    def _detach(self, link: Link) -> None:
        link.deafen()
        link.abort(ConnectionLost("the client has left"))
        self._link = self._leave = None
        if self._go_away is not None:
            self._go_away.cancel()
        self.core.detach(self.now())
        self._dispatch()

    # What happens.

    def leave(self, why: str, close_code: int = 1000) -> None:
        """Leaves the present node for the next one."""
        if self._leave is not None and not self._leave.done():
            self._close_code = close_code
            self._leave.set_result(why)

    def _on_message(self, data: str | bytes) -> None:
        core = self.core
        error = core.handle(self.now(), data if isinstance(data, bytes) else None)
        if error is not None:
            self.leave(f"the node broke the protocol ({error})", core.close_code or 1002)
        if core.readable:
            self._wake_readers()
        if core.events:
            self._dispatch()
        self.flush()

    def _wake_readers(self) -> None:
        readable, self.core.readable = self.core.readable, set()
        for number in readable:
            wake = self.readers.get(number)
            if wake is not None:
                wake()

    def _dispatch(self) -> None:
        """Tells everybody what happened to them."""
        self._wake_readers()
        events, self.core.events = self.core.events, []
        for event in events:
            if isinstance(event, Stored):
                self.answers.on_stored(event, self.core.log)
            elif isinstance(event, Refusal):
                if event.reason == "expired" and self.tokens.are_renewed:
                    self.leave(EXPIRED)
                self.answers.on_refused(event)
            elif isinstance(event, Unknown):
                self.answers.on_unknown(event)
            elif isinstance(event, Welcomed):
                self._on_welcomed(event)
            elif isinstance(event, Rejected):
                self._rejected = event
                self.leave("the node rejects the client")
            elif isinstance(event, GoAway):
                seconds = min(event.window, LONGEST_GO_AWAY) / 1000 * random.random()
                if self._go_away is not None:
                    self._go_away.cancel()
                why = "the node asked the client to go elsewhere"
                self._go_away = self.loop.call_later(seconds, self.leave, why)
            elif isinstance(event, Aborted):
                said = f": {printable(event.text)}" if event.text else ""
                self.leave(f"the node gave the connection up{said}")
        if self.on_room is not None:
            self.on_room()
        if self.on_answered is not None and self.answers.is_empty():
            self.on_answered()

    def _on_welcomed(self, welcomed: Welcomed) -> None:
        self._was_welcomed = True
        self.connections += 1
        url = redacted(self.nodes.present.target.url)
        self._tell(Connected(url, printable(welcomed.name), welcomed.log))

    def _tell(self, event: Event) -> None:
        if self.on_event is None:
            return
        try:
            self.on_event(event)
        except Exception:
            logger.exception("the function for events failed")

    # What is sent.

    def flush(self) -> None:
        """There may be something to send."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        self._send()
        deadline = self.core.next_timeout()
        if deadline != self._timer_at:
            self._set_timer(deadline)

    def _send(self) -> None:
        link = self._link
        if link is None:
            return
        now = self.now()
        while link.is_open and not link.is_full:
            packet = self.core.transmit(now)
            if packet is None:
                return
            link.write(packet)

    def _set_timer(self, deadline: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, deadline
        if deadline is not None and self.ended is None:
            self._timer = self.loop.call_at(deadline / 1000, self._on_time)

    def _on_time(self) -> None:
        self._timer = self._timer_at = None
        self.core.handle_timeout(self.now())
        self._dispatch()
        self._flush()

    # The end.

    def end(self, why: str) -> None:
        """The client is over: everybody who waits learns it. Only the first call counts."""
        if self.ended is not None:
            return
        self.ended = why
        for _, may_be_stored in self.core.give_up(self.now()):
            self.answers.give_up(may_be_stored, why)
        self._set_timer(None)
        for wake in list(self.readers.values()):
            wake()
        self._dispatch()


async def ended(tasks: Sequence[asyncio.Task[ConnectionLost]]) -> None:
    """Waits until cancelled tasks are over. They do nothing that takes long."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait(tasks)
