#!/usr/bin/env python3
"""Compares `unstall relay` with nginx as a WebSocket proxy, on this machine.

Usage: bench/relay.py [--rounds N] [UNSTALL]

Each round pulls packets of 64 B and 4 KiB directly, through the relay and through nginx, and then counts round
trips of 64 B on one connection. At the end 1,000 idle connections go through each, and their memory is counted.
Everything is over loopback, without TLS and without compression. It needs nginx, and the command in release
mode: cargo build --release -p unstall-cli.
"""
import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = {64: 1_000_000, 4096: 100_000}
ROUND_TRIPS = 10_000
IDLE = 1_000
WAYS = ["direct", "relay", "nginx"]
REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
NGINX = """
daemon off; worker_processes auto; error_log stderr crit; pid {directory}/pid; user root;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
  uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://{server}; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    }}
  }}
}}
"""


def started(*command):
    """A command that says where it listens, and its address."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    return process, line.strip().split("://")[1]


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def connect(address, path="/echo"):
    host, port = address.split(":")
    stream = socket.create_connection((host, int(port)))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(REQUEST.format(path=path).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.recv(1)
    assert b" 101 " in head, head
    return stream


def rate(unstall, address, size, count):
    """Messages a second from the server to a client."""
    command = [unstall, "pull", "--plain", "--json", "--count", str(count), "--size", str(size)]
    output = subprocess.run([*command, f"ws://{address}/packets"], capture_output=True, text=True)
    assert output.returncode == 0, output
    return json.loads(output.stdout)["messages_per_second"]


def round_trip(address):
    """The median round trip of a message of 64 B, in microseconds."""
    stream = connect(address)
    frame = b"\x82\xc0" + bytes(4) + b"x" * 64
    times = []
    for _ in range(ROUND_TRIPS):
        begun = time.perf_counter()
        stream.sendall(frame)
        left = 66
        while left:
            left -= len(stream.recv(left))
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def memory(pids):
    """KiB that processes hold by themselves."""
    total = 0
    for pid in pids:
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    return total


def children(pid):
    found = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, found)]


def idle_memory(address, pid):
    """KiB for each idle connection."""
    warm = [connect(address) for _ in range(100)]
    time.sleep(1)
    before = memory(children(pid))
    idle = [connect(address) for _ in range(IDLE)]
    time.sleep(1)
    after = memory(children(pid))
    for stream in warm + idle:
        stream.close()
    return (after - before) / IDLE


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("unstall", nargs="?", default=str(ROOT / "target/release/unstall"))
    arguments = arguments.parse_args()
    if not shutil.which("nginx"):
        sys.exit("nginx is not installed")
    unstall = arguments.unstall
    directory = tempfile.TemporaryDirectory()
    server, server_at = started(unstall, "serve", "--plain", "--listen", "127.0.0.1:0")
    to = ["--to", f"ws://{server_at}"]
    relay, relay_at = started(unstall, "relay", "--plain", "--listen", "ws://127.0.0.1:0", *to)
    port = free_port()
    configuration = pathlib.Path(directory.name, "conf")
    configuration.write_text(NGINX.format(directory=directory.name, port=port, server=server_at))
    nginx = subprocess.Popen(["nginx", "-e", "stderr", "-c", configuration])
    addresses = {"direct": server_at, "relay": relay_at, "nginx": f"127.0.0.1:{port}"}
    try:
        while True:
            try:
                connect(addresses["nginx"]).close()
                break
            except OSError:
                time.sleep(0.05)
        rows = {f"{size} B, messages a second": [] for size in SIZES}
        rows["round trip of 64 B, µs"] = []
        for _ in range(arguments.rounds):
            for (size, count), name in zip(SIZES.items(), rows):
                rows[name].append({way: rate(unstall, addresses[way], size, count) for way in WAYS})
            rows["round trip of 64 B, µs"].append({way: round_trip(addresses[way]) for way in WAYS})
        for name, rounds in rows.items():
            medians = {way: statistics.median(figures[way] for figures in rounds) for way in WAYS}
            ratio = statistics.median(figures["relay"] / figures["nginx"] for figures in rounds)
            shown = ", ".join(f"{way} {value:,.0f}" for way, value in medians.items())
            print(f"{name}: {shown}; relay / nginx {ratio:.2f}", flush=True)
        relayed = idle_memory(relay_at, relay.pid)
        proxied = idle_memory(addresses["nginx"], nginx.pid)
        print(f"idle connection, KiB: relay {relayed:.1f}, nginx {proxied:.1f}")
    finally:
        for process in (relay, server, nginx):
            process.terminate()
        nginx.wait()


if __name__ == "__main__":
    os.environ.pop("UNSTALL_LOG", None)
    main()
