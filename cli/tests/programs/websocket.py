"""WebSocket over a blocking socket, by hand and with the standard library
alone: the opening handshake and unfragmented frames of RFC 6455."""

import base64
import hashlib
import os
import struct

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def read_head(sock):
    """Reads one HTTP head, byte by byte so that no frame is taken with it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError("closed during the handshake")
        head += byte
    return head


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def answer(sock):
    """The server's side of the handshake."""
    lines = read_head(sock).split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
    assert fields[b"upgrade"] == b"websocket"
    key = next(l for l in lines if l.lower().startswith(b"sec-websocket-key")).split(b": ")[1]
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n"
    )


def ask(sock, host):
    """The client's side of the handshake."""
    key = base64.b64encode(os.urandom(16))
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: " + key + b"\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    head = read_head(sock)
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert accept_key(key) in head


def frame(payload, masked):
    """One binary message in one frame."""
    mask_bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x82, mask_bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x82, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, mask_bit | 127, size)
    # A mask of zeros is valid, and leaves the payload unchanged.
    return head + (bytes(4) if masked else b"") + payload


def read_exactly(sock, size):
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionError("closed within a frame")
        data += part
    return bytes(data)


def read_message(sock):
    """The payload of the next message."""
    _, second = read_exactly(sock, 2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", read_exactly(sock, 2))
    elif size == 127:
        (size,) = struct.unpack("!Q", read_exactly(sock, 8))
    mask = read_exactly(sock, 4) if second & 0x80 else bytes(4)
    payload = read_exactly(sock, size)
    if any(mask):
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return payload
