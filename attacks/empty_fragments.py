"""Once a flood of empty fragments never ended a turn of reading, and other clients were served late. Usage: empty_fragments.py HOST:PORT"""
# A turn counted messages and their bytes, but empty fragments are neither.
import multiprocessing
import sys
import time

from wire import Socket, address, frame, upgrade

to = address(sys.argv[1])


def flood(kind, until):
    sock, _ = upgrade(to, "/sink")
    if kind == "empty fragments":
        sock.sendall(frame(b"", 2, False))
        block = frame(b"", 0, False) * 170_000
    else:
        block = frame(bytes(16), 2) * 45_000
    while time.time() < until:
        sock.sendall(block)


def measure(kind):
    until = time.time() + 4
    floods = [multiprocessing.Process(target=flood, args=(kind, until)) for _ in range(2)] if kind else []
    for it in floods:
        it.start()
    time.sleep(0.5)
    ws, took = Socket(to), []
    while time.time() < until - 0.2:
        at = time.time()
        ws.send(b"x")
        ws.read()
        took.append(time.time() - at)
        time.sleep(0.002)
    for it in floods:
        it.terminate()
        it.join()
    took.sort()
    print(f"{kind or 'nothing else':>16}: echo p50 {took[len(took) // 2] * 1e3:.2f} ms, "
          f"p99 {took[len(took) * 99 // 100] * 1e3:.2f} ms, max {took[-1] * 1e3:.1f} ms of {len(took)}")
    return took[len(took) // 2]


measure("")
messages, fragments = measure("short messages"), measure("empty fragments")
# Both floods should cost a turn of the same length. A busy machine slows both down.
if fragments > 0.002 and fragments > 4 * messages:
    sys.exit(f"DEFECT: next to empty fragments an echo takes {fragments * 1e3:.1f} ms, "
             f"next to short messages {messages * 1e3:.1f} ms")
print("ok")
