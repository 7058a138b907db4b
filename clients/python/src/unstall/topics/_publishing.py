"""Publishing: room for messages, and their answers."""

from __future__ import annotations

import asyncio

from .._core.packet import MIN_LARGEST_MESSAGE
from .._core.topics.publishing import message_cost
from ._answers import Pending, Result
from ._keeper import Keeper
from .errors import PublishError

#: How often a message that was refused because the token had expired is published again, each time on a
#: new connection. A token that does not live for one round trip is of no use.
EXPIRED_AGAIN = 3

#: A message to publish: the topic, the data, and whether it is final.
Publication = (
    tuple[str, str | bytes | bytearray | memoryview] | tuple[str, str | bytes | bytearray | memoryview, bool]
)
#: The same as the core takes it: topic, whether it is text, whether it is final, payload.
Encoded = tuple[bytes, bool, bool, bytes]


def encoded(topic: str, message: str | bytes | bytearray | memoryview, final: bool = False) -> Encoded:
    """A message as bytes. Raises `ValueError` for text that cannot be UTF-8."""
    if isinstance(message, str):
        return topic.encode(), True, final, message.encode()
    return topic.encode(), False, final, bytes(message)


class Line:
    """Publishers that wait for room stand in line here, so that their messages stay together."""

    def __init__(self, keeper: Keeper, bound: int) -> None:
        self._keeper, self._bound = keeper, bound
        self._turn = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None
        self._settled: asyncio.Future[None] | None = None
        self._is_closing = False

    async def publish_one(self, message: Encoded) -> Result:
        """As `publish`, in less time if nobody stands in line and there is room."""
        if not self._turn.locked():
            pending = Pending(1, self._keeper.loop.create_future())
            if self._accept([message], 0, pending):
                self._keeper.flush()
                if pending.unanswered:
                    await pending.future
                result = pending.results[0]
                if result is not None and not self._is_late(result):
                    return result
        return (await self.publish([message]))[0]

    def _is_late(self, result: Result) -> bool:
        """Whether it was refused because of a token that has a successor."""
        return (
            self._keeper.tokens.are_renewed
            and isinstance(result, PublishError)
            and result.reason == "expired"
            and not result.may_be_stored
        )

    async def publish(self, messages: list[Encoded]) -> list[Result]:
        """Publishes messages in order. What was refused because the token had expired is published again
        with the next one."""
        results = await self._publish_once(messages)
        for _ in range(EXPIRED_AGAIN if self._keeper.tokens.are_renewed else 0):
            late = [at for at, result in enumerate(results) if self._is_late(result)]
            if not late:
                break
            again = await self._publish_once([messages[at] for at in late])
            for at, result in zip(late, again, strict=True):
                results[at] = result
        return results

    async def _publish_once(self, messages: list[Encoded]) -> list[Result]:
        keeper = self._keeper
        pending = Pending(len(messages), keeper.loop.create_future())
        at = 0
        async with self._turn:
            while True:
                at = self._accept(messages, at, pending)
                keeper.flush()
                if at == len(messages):
                    break
                await self._wait_for_room()
        if pending.unanswered:
            await pending.future
        return [result for result in pending.results if result is not None]

    def _accept(self, messages: list[Encoded], at: int, pending: Pending) -> int:
        """Publishes as many messages as there is room for. Gives how far it came."""
        keeper, core, begun = self._keeper, self._keeper.core, at
        publisher = core.publisher
        if keeper.ended is not None or self._is_closing:
            rest = len(messages) - at
            why = keeper.ended or "it is being closed"
            errors: list[Result] = [
                PublishError("not sent", may_be_stored=False, text=why) for _ in range(rest)
            ]
            pending.answer(at, errors)
            return len(messages)
        while at < len(messages):
            topic, text, final, payload = messages[at]
            size = message_cost(topic, len(payload))
            if publisher.held and publisher.held + size > self._bound:
                break
            if len(payload) > MIN_LARGEST_MESSAGE and core.welcomed is None:
                # What the node takes is known when it has welcomed the client.
                break
            number = core.publish(topic, text, final, payload)
            if isinstance(number, str):
                keeper.answers.expect(pending, begun, at - begun)
                pending.answer(at, [PublishError(number, may_be_stored=False)])
                begun = at + 1
            at += 1
        keeper.answers.expect(pending, begun, at - begun)
        return at

    async def _wait_for_room(self) -> None:
        """Waits until half of the room is free, or something else has changed."""
        keeper = self._keeper
        room = self._room = keeper.loop.create_future()
        keeper.on_room = self._on_room
        try:
            await room
        finally:
            self._room = keeper.on_room = None

    def _on_room(self) -> None:
        held = self._keeper.core.publisher.held
        room = self._room
        is_free = held <= self._bound // 2 or self._keeper.ended is not None
        if is_free and room is not None and not room.done():
            room.set_result(None)

    async def settled(self, within: float) -> None:
        """Takes no more messages, and waits until all have their answers, but not longer than so many
        seconds."""
        keeper = self._keeper
        self._is_closing = True
        if keeper.answers.is_empty():
            return
        settled = self._settled = keeper.loop.create_future()
        keeper.on_answered = self._on_settled
        try:
            await asyncio.wait({settled}, timeout=within)
        finally:
            keeper.on_answered = None

    def _on_settled(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
