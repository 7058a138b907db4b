"""The synchronous face does what the asynchronous one does, from any thread."""

from __future__ import annotations

import signal
import threading
import time
import types
from collections.abc import Callable

import pytest

import unstall
from harness import Serve
from unstall.sync import Session, connect


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "unstall"]


def test_a_script_sends_and_receives(serve: Serve) -> None:
    with connect(serve.url + "/echo") as session:
        assert session.is_session
        session.send("one")
        assert session.recv() == "one"
        session.send_many([b"two", "three"])
        assert session.recv(timeout=5) == b"two"
        assert session.recv_batch() == ["three"]
        session.delivered(timeout=5)
        assert session.stats().messages_received == 3
        assert session.take_undelivered() == []
    assert session.is_closed
    assert threads() == []
    assert session.close().clean
    with pytest.raises(RuntimeError, match="closed"):
        session.send("late")


def test_a_timeout_loses_no_message(serve: Serve) -> None:
    with connect(serve.url + "/echo") as session:
        received: list[object] = []
        with pytest.raises(TimeoutError, match=r"longer than 0\.01 s"):
            session.recv(timeout=0.01)
        for number in range(300):
            session.send(str(number))
            while len(received) <= number:
                try:
                    received.append(session.recv(timeout=0))
                except TimeoutError:
                    continue
        assert received == [str(number) for number in range(300)]


def test_ctrl_c_interrupts_and_loses_no_message(serve: Serve) -> None:
    def interrupt(_: int, frame: types.FrameType | None) -> None:
        # Only while the program waits in a call: what a call has returned belongs to the program.
        if frame is not None and frame.f_code is threading.Condition.wait.__code__:
            raise KeyboardInterrupt

    def send(session: Session) -> None:
        for number in range(200):
            time.sleep(0.001)  # Some messages come right away, and some after the interrupt.
            session.send(str(number))

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with connect(serve.url + "/echo") as session:
            received: list[object] = []
            interrupts = 0
            sender = threading.Thread(target=send, args=(session,))
            sender.start()
            while len(received) < 200:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + (interrupts + len(received)) % 7 * 0.0002)
                try:
                    received.append(session.recv(timeout=5))
                except KeyboardInterrupt:
                    interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            sender.join()
            assert received == [str(number) for number in range(200)]
            assert interrupts > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_connection_lives_while_the_program_computes(serve: Serve) -> None:
    with connect(serve.url + "/echo", ping_interval=0.05, silence_timeout=0.2) as session:
        time.sleep(0.6)  # The program does something else for several silence timeouts.
        session.send("still there")
        assert session.recv() == "still there"
        assert session.stats().connections == 1


def test_iteration_ends_when_the_server_closes(own_serve: Callable[..., Serve]) -> None:
    server = own_serve()
    with connect(server.url + "/echo", reconnect=None) as session:
        session.send("before")
        received = []
        for message in session:
            received.append(message)
            server.process.terminate()
        assert received == ["before"]


def test_a_failed_connect_leaves_no_thread() -> None:
    with pytest.raises(unstall.ConnectError, match="no connection to"):
        connect("ws://127.0.0.1:1/")
    with pytest.raises(ValueError, match="window"):
        connect("ws://127.0.0.1:1/", window=1)
    assert threads() == []


def test_several_threads_use_one_session(serve: Serve) -> None:
    with connect(serve.url + "/echo") as session:

        def send(name: int) -> None:
            for number in range(200):
                session.send(f"{name} {number}")

        senders = [threading.Thread(target=send, args=(name,)) for name in range(4)]
        for sender in senders:
            sender.start()
        received = [str(session.recv(timeout=10)) for _ in range(800)]
        for sender in senders:
            sender.join()
        for name in range(4):
            own = [text for text in received if text.startswith(f"{name} ")]
            assert own == [f"{name} {number}" for number in range(200)]


def test_a_thread_that_receives_ends_when_another_one_closes(serve: Serve) -> None:
    session = connect(serve.url + "/echo")
    received: list[object] = []

    def receive() -> None:
        received.extend(session)
        received.append("the end")

    receiver = threading.Thread(target=receive)
    receiver.start()
    session.send("one")
    deadline = time.monotonic() + 10
    while not received and time.monotonic() < deadline:
        time.sleep(0.001)
    assert session.close().clean
    receiver.join(10)
    assert received == ["one", "the end"]
