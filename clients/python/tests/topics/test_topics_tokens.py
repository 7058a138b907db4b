"""Tokens: who may what, and what happens when a token ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import pathlib
import time
from collections.abc import Iterator

import pytest
from support import Hub, numbers_of, on_loop, publish_numbers, take, until

from unstall import Reconnect
from unstall.topics import (
    Disconnected,
    Event,
    Message,
    PublishError,
    SubscriptionError,
    TokenFailed,
    Topics,
)
from unstall.topics._tokens import expiry_of, renew_in

SECRET = b"a secret of at least thirty-two bytes"
QUICK = Reconnect(first=0.01, longest=0.2)


def token(sub: list[str] | None = None, pub: list[str] | None = None, life: float = 3_600) -> str:
    """A JSON Web Token (HS256). It ends with a whole second, so it may live up to a second less."""
    claims = {"sub": sub or [">"], "pub": pub or [">"], "exp": int(time.time() + life), "id": "tester"}
    parts = [encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    return signed + "." + encoded(hmac.digest(SECRET, signed.encode(), hashlib.sha256))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def guarded(tmp_path: pathlib.Path) -> Iterator[Hub]:
    """A hub that asks for tokens."""
    key = tmp_path / "key"
    key.write_bytes(SECRET)
    hub = Hub("--token-key", str(key)).start()
    yield hub
    hub.stop()


@on_loop
async def test_a_token_opens_what_it_allows_and_nothing_else(guarded: Hub) -> None:
    async with Topics(guarded.url, token=token(sub=["a.>"], pub=["a.b"])) as topics:
        await topics.publish("a.b", "1")
        assert numbers_of(await take(topics.subscribe("a.*"), 1)) == [1]
        with pytest.raises(PublishError) as refused:
            await topics.publish("a.c", "2")
        assert (refused.value.reason, refused.value.may_be_stored) == ("not allowed", False)
        with pytest.raises(SubscriptionError) as ended:
            await topics.subscribe(">").recv()
        assert ended.value.reason == "not allowed"
        assert numbers_of(await take(topics.subscribe("a.>"), 1)) == [1]


@pytest.mark.parametrize("wrong", ["", "nonsense", token()[:-4] + "AAAA", token(life=-60)])
@on_loop
async def test_a_token_that_every_node_rejects_ends_the_client(guarded: Hub, wrong: str) -> None:
    events: list[Event] = []
    async with Topics(guarded.url, token=wrong, on_event=events.append) as topics:
        with pytest.raises(SubscriptionError, match="not allowed"):
            await topics.subscribe("t").recv()
        with pytest.raises(PublishError) as error:
            await topics.publish("t", "x")
        assert error.value.reason == "not sent"
    last = events[-1]
    assert isinstance(last, Disconnected)
    assert last.again_in is None
    assert not wrong or wrong not in str(events)


@on_loop
async def test_a_fresh_token_is_fetched_for_each_connection(guarded: Hub) -> None:
    asked = 0

    async def fetch() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return token() if asked != 2 else "wrong"

    async with Topics(guarded.url, token=fetch, reconnect=QUICK) as topics:
        await topics.publish("t", "1")
        await guarded.restart()
        await topics.publish("t", "2")
    assert asked == 3


@on_loop
async def test_a_token_is_replaced_before_it_expires_without_a_new_connection(guarded: Hub) -> None:
    asked = 0

    def fetch() -> str:
        nonlocal asked
        asked += 1
        return token(life=2 if asked == 1 else 3_600)

    async with Topics(guarded.url, token=fetch) as topics:
        subscription = topics.subscribe("t")
        await publish_numbers(topics, "t", range(10))
        await take(subscription, 10)
        await asyncio.sleep(3.2)
        await publish_numbers(topics, "t", range(10, 20))
        assert numbers_of(await take(subscription, 10)) == list(range(10, 20))
        assert topics.stats().connections == 1
    assert asked == 2


@on_loop
async def test_a_token_that_expires_is_replaced_on_a_new_connection(guarded: Hub) -> None:
    """The function gives tokens that have expired when they are used; then it gives a good one."""
    asked = 0

    def fetch() -> str:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise RuntimeError("the login server rests")
        return token(life=2 if asked == 1 else 3_600)

    events: list[Event] = []
    async with Topics(guarded.url, token=fetch, reconnect=QUICK, on_event=events.append) as topics:
        subscription = topics.subscribe("t")
        for number in range(30):
            await topics.publish("t", str(number))
            await asyncio.sleep(0.1)
        assert numbers_of(await take(subscription, 30)) == list(range(30))
        assert topics.stats().connections == 2
    failed = [event for event in events if isinstance(event, TokenFailed)]
    assert [event.why for event in failed] == ["the login server rests"]


@on_loop
async def test_a_fixed_token_that_expires_ends_the_subscription_and_its_position_goes_on(
    guarded: Hub,
) -> None:
    async with Topics(guarded.url, token=token(life=2)) as topics:
        await publish_numbers(topics, "t", range(5))
        subscription = topics.subscribe("t")
        await take(subscription, 5)
        with pytest.raises(SubscriptionError) as ended:
            await subscription.recv()
        assert ended.value.reason == "expired"
        with pytest.raises(PublishError) as refused:
            await topics.publish("t", "late")
        assert (refused.value.reason, refused.value.may_be_stored) == ("expired", False)
    async with Topics(guarded.url, token=token()) as topics:
        await publish_numbers(topics, "t", range(5, 7))
        assert numbers_of(await take(topics.subscribe("t", after=subscription.position), 2)) == [5, 6]


@on_loop
async def test_a_token_function_that_fails_is_asked_again(guarded: Hub) -> None:
    asked = 0

    def fetch() -> str:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise RuntimeError("not yet")
        return token()

    async with Topics(guarded.url, token=fetch, reconnect=QUICK) as topics:
        subscription = topics.subscribe("t")
        await topics.publish("t", "1")
        assert isinstance(await subscription.recv(), Message)
    assert asked == 3


@on_loop
async def test_a_token_that_cannot_be_sent_is_told_and_not_printed() -> None:
    events: list[Event] = []
    async with Topics("ws://127.0.0.1:9", token="a secret with spaces", on_event=events.append):
        await until(lambda: bool(events))
    assert "cannot be sent" in str(events[0])
    assert "secret with" not in str(events)


def test_the_expiry_of_a_token_is_read_without_trust() -> None:
    left = renew_in(token(life=1_000))
    assert left is not None
    assert 930 < left <= 940
    left = renew_in(token(life=10))
    assert left is not None
    assert 6 < left <= 8
    assert renew_in(token(life=-10)) == 0
    for nonsense in ("", "a.b", "a.b.c", "a.e30.c", "a.W10.c", "a.eyJleHAiOiJ4In0.c", "é.é.é"):
        assert expiry_of(nonsense) is None
