"""Once a flood of silent connections refused honest clients: addresses connect and say nothing, while an honest client connects again and again. Usage: silent_flood.py HOST:PORT [SILENT ADDRESSES, default 1] [SECONDS, default 8] (Linux: they are 127.0.0.66 and up)"""
import socket
import sys
import threading
import time

host, _, port = sys.argv[1].removeprefix("ws://").rstrip("/").rpartition(":")
to = (host, int(port))
addresses = int(sys.argv[2]) if len(sys.argv) > 2 else 1
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 8
REQUEST = (b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
over = threading.Event()
silent = [0] * addresses


def connect(ip):
    sock = socket.socket()
    sock.settimeout(10)
    sock.bind((ip, 0))
    sock.connect(to)
    return sock


def flood(index):
    held = []
    while not over.is_set():
        try:
            held.append(connect(f"127.0.0.{66 + index}"))
            silent[index] += 1
        except OSError:
            pass
        if len(held) > 2000:
            held.pop(0).close()


for index in range(addresses):
    threading.Thread(target=flood, args=(index,), daemon=True).start()
took, refused, began = [], [], time.time()
while time.time() < began + seconds:
    at = time.time()
    try:
        with connect("127.0.0.1") as sock:
            sock.sendall(REQUEST)
            answer = sock.recv(12)
        (took if b"101" in answer else refused).append(time.time() - at)
    except OSError as why:
        refused.append(why)
    time.sleep(0.05)
over.set()
took.sort()
print(f"{sum(silent) / seconds:.0f} silent connections a second from {addresses} addresses; an honest client was let in "
      f"{len(took)} times, after {took[len(took) // 2] * 1000:.1f} ms at the median and {took[-1] * 1000:.0f} ms at "
      f"most, and refused {len(refused)} times" if took else "an honest client was never let in")
if refused or not took:
    sys.exit("DEFECT: silent clients keep an honest one of another address out")
print("ok")
