"""One end of a WebSocket connection that behaves as it is told:

    talk.py serve BEHAVIOUR ADDRESS
    talk.py connect BEHAVIOUR ADDRESS PORT

`serve` prints the port it listens on. Both print `open` once the connection
is open and then behave, until they are killed."""

import socket
import sys
import threading
import time

import websocket

MESSAGE = bytes(4096)


def read_all(sock, masked):
    """Reads everything, writes nothing."""
    try:
        while True:
            websocket.read_message(sock)
    except ConnectionError:
        sys.exit()


def flood(sock, masked):
    """Writes as fast as it can and never reads: the loop of a program that
    sends all its requests before it looks at an answer."""
    data = websocket.frame(MESSAGE, masked)
    while True:
        sock.sendall(data)


def stop_reading(sock, masked):
    """Reads ten messages and never again."""
    for _ in range(10):
        websocket.read_message(sock)
    hold(sock, masked)


def hold(sock, masked):
    """Does nothing at all."""
    while True:
        time.sleep(3600)


def read_slowly(sock, masked):
    """Takes a little every 50 ms."""
    while True:
        sock.recv(16 * 1024)
        time.sleep(0.05)


def chat(sock, masked):
    """Writes a message every 50 ms, and reads all the while."""
    threading.Thread(target=read_all, args=(sock, masked), daemon=True).start()
    data = websocket.frame(MESSAGE, masked)
    while True:
        sock.sendall(data)
        time.sleep(0.05)


def keepalive(sock, masked):
    """Says nothing, but has the kernel probe the peer every second."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 100)
    hold(sock, masked)


def main():
    role, behaviour, address = sys.argv[1:4]
    if role == "serve":
        listener = socket.create_server((address, 0))
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
        websocket.answer(sock)
    else:
        sock = socket.create_connection((address, int(sys.argv[4])))
        websocket.ask(sock, address)
    print("open", flush=True)
    try:
        globals()[behaviour](sock, masked=role == "connect")
    except ConnectionError:
        sys.exit("the peer has gone")


main()
