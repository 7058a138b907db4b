"""Once clients that asked for much and read nothing were never cut, and each cost the server a netlink socket twice a second. Usage: stalled_and_silent.py HOST:PORT PID [CLIENTS, default 1000]"""
# The peer's kernel answers window probes, so the peer is alive and just does not read. There was no write_timeout by
# default; from 30 s on the server asked the kernel every 500 ms.
import os
import sys
import time

from wire import address, frame, upgrade

to, pid = address(sys.argv[1]), sys.argv[2]
count = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
PATIENCE = 180  # Seconds within which the server must cut a client that reads nothing; write_timeout is 120 s.
HZ = os.sysconf("SC_CLK_TCK")


def cpu():
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def sockets():
    """How many connections the server has. A client with a full window cannot see that it was cut."""
    count = 0
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            count += "socket" in os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except FileNotFoundError:
            pass  # Closed in between.
    return count


def over(seconds):
    before = cpu()
    time.sleep(seconds)
    return (cpu() - before) / seconds * 100


before = sockets()
held = []
for _ in range(count):
    sock, _ = upgrade(to, "/packets")
    sock.sendall(frame(b'{"count":1000000,"size":4096}', 1))
    held.append(sock)
time.sleep(8)
idle = over(5)
time.sleep(30)
asking = over(10)
began = time.time() - 53
print(f"{count} clients that do not read: the server takes {idle:.1f} % of a core in the first 30 s, {asking:.1f} % after")
while (alive := sockets() - before) > 0 and time.time() < began + PATIENCE:
    time.sleep(1)
print(f"{alive} are still open after {time.time() - began:.0f} s without reading a byte")
bad = []
if alive:
    bad.append(f"{alive} clients that read nothing are still open")
if asking > idle + 0.01 * count:
    bad.append(f"asking for them costs {asking:.0f} % of a core")
if bad:
    sys.exit("DEFECT: " + "; ".join(bad))
print("ok")
