"""Topics for programs without asyncio."""

from __future__ import annotations

import threading

import pytest
from support import Hub

from unstall.sync import Topics
from unstall.topics import CaughtUp, Delivery, Message, PublishError, Stored


def test_what_is_published_is_received_in_order(hub: Hub) -> None:
    with Topics(hub.url) as topics:
        assert topics.publish("t", "0").offset == 1
        results = topics.publish_many([("t", str(n)) for n in range(1, 500)] + [("t", "500", True)])
        assert all(isinstance(result, Stored) for result in results)
        got = list(topics.subscribe("t"))
        assert [int(m.data) for m in got if isinstance(m, Message)] == list(range(501))
        with pytest.raises(PublishError):
            topics.publish("not a topic", "x")
        assert topics.stats().stored == 501
    assert "unstall" not in [thread.name for thread in threading.enumerate()]


def test_a_position_is_that_of_what_was_handed_over(hub: Hub) -> None:
    with Topics(hub.url) as topics:
        topics.publish_many([("t", str(n)) for n in range(10)])
        with topics.subscribe("t", caught_up=True) as subscription:
            for _ in range(4):
                last = subscription.recv()
            assert last is not None
            assert subscription.position == last.position
            rest = subscription.recv_batch()
            assert len(rest) >= 6
        going_on = topics.subscribe("t", after=last.position, caught_up=True)
        deliveries: list[Delivery | None] = []
        while not deliveries or not isinstance(deliveries[-1], CaughtUp):
            deliveries.append(going_on.recv(5))
        assert [m.data for m in deliveries if isinstance(m, Message)] == ["4", "5", "6", "7", "8", "9"]


def test_a_receiver_with_a_time_limit_loses_nothing(hub: Hub) -> None:
    with Topics(hub.url) as topics, Topics(hub.url) as writer:
        subscription = topics.subscribe("t")
        with pytest.raises(TimeoutError):
            subscription.recv(0.05)
        writing = threading.Thread(target=lambda: [writer.publish("t", str(n)) for n in range(100)])
        writing.start()
        got: list[int] = []
        while len(got) < 100:
            try:
                message = subscription.recv(0.001)
            except TimeoutError:
                continue
            assert isinstance(message, Message)
            got.append(int(message.data))
        writing.join()
    assert got == list(range(100))


def test_an_exception_ends_the_client_at_once(hub: Hub) -> None:
    topics = Topics("ws://127.0.0.1:9")
    with pytest.raises(KeyError), topics:
        raise KeyError
    with pytest.raises(RuntimeError, match="in `with`"):
        topics.publish("t", "late")
