#!/usr/bin/env python3
"""Records incidents from real processes, as tests of the alert rules.

docs/metrics/record.py [--unstall target/debug/unstall] > docs/metrics/alerts_test.yml

Each incident runs for a few seconds and is sampled often; a sample stands for 15 seconds, so that promtool
sees minutes. A lag in seconds is stretched alike. Linux only: the full disk is a tmpfs in a namespace of its own.
"""
import argparse
import base64
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

SAMPLES, INTERVAL = 32, 0.2
QUIET = 8  # samples before the incident
KEPT = re.compile(r"unstall_(stalled_connections|connections|server_accepted_total|reconnects_total"
                  r"|topics_refused_messages_total|topics_max_lag_seconds|server_held_(limit_)?bytes|gaps_total)\b")


class Program:
    """A process that listens. It is killed at the end."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.address = re.search(r"ws://([0-9.:]+)", line).group(1)

    def page(self):
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def host(self):
        host, port = self.address.split(":")
        return host, int(port)

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def record(program, begin, during=lambda: None):
    """Samples the page, and begins the incident after the quiet samples."""
    series = {}
    for sample in range(SAMPLES):
        if sample == QUIET:
            begin()
        if sample > QUIET:
            during()
        for line in program.page().splitlines():
            if KEPT.match(line):
                name, value = line.rsplit(" ", 1)
                if "lag_seconds" in name:
                    value = f"{float(value) * 15 / INTERVAL:g}"
                series.setdefault(name, ["_"] * sample).append(value)
        for values in series.values():
            values.extend(["_"] * (sample + 1 - len(values)))
        time.sleep(INTERVAL)
    return series


def frame(payload):
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def connect(program, path):
    """A WebSocket by hand, which reads only when it is told to."""
    client = socket.create_connection(program.host())
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall((f"GET {path} HTTP/1.1\r\nhost: {program.address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                    f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    return client


def stalled_consumer(unstall):
    program = Program(unstall, "serve", "--listen", "127.0.0.1:0")
    sockets = []

    def begin():
        client = connect(program, "/packets")
        client.sendall(frame(b'{"count":100000,"size":65536}'))
        sockets.append(client)

    series = record(program, begin)
    program.end()
    return series


def reconnect_storm(unstall):
    program = Program(unstall, "serve", "--listen", "127.0.0.1:0")

    def during():
        for _ in range(5):
            connect(program, "/echo").close()

    series = record(program, lambda: None, during)
    program.end()
    return series


def full_disk(unstall):
    inside = 'mount -t tmpfs -o size=160m none "$1" && exec "$2" hub --listen 127.0.0.1:0 --store "$1/log"'
    folder = subprocess.check_output(["mktemp", "-d"], text=True).strip()
    program = Program("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh", folder, unstall)

    def during():
        for _ in range(12):
            request = urllib.request.Request(f"http://{program.address}/topics/a", data=os.urandom(1 << 20),
                                             headers={"content-type": "application/octet-stream"})
            try:
                urllib.request.urlopen(request, timeout=30).read()
            except urllib.error.HTTPError:
                pass  # refused, which is the incident

    series = record(program, lambda: None, during)
    program.end()
    os.rmdir(folder)
    return series


def lagging_subscriber(unstall):
    program = Program(unstall, "hub", "--listen", "127.0.0.1:0")
    subscriber = subprocess.Popen([unstall, "subscribe", f"ws://{program.address}", "a"], stdout=subprocess.DEVNULL)

    def begin():
        subscriber.send_signal(signal.SIGSTOP)
        during()

    def during():
        for _ in range(4):
            request = urllib.request.Request(f"http://{program.address}/topics/a", data=os.urandom(1 << 20),
                                             headers={"content-type": "application/octet-stream"})
            urllib.request.urlopen(request, timeout=30).read()

    series = record(program, begin, during)
    subscriber.kill()
    subscriber.wait()
    program.end()
    return series


INCIDENTS = [
    ("a consumer that does not read", stalled_consumer,
     {"UnstallStalled": {"side": "server", "cause": "socket_full"}}),
    ("clients that come back and leave at once", reconnect_storm, {"UnstallReconnectStorm": {}}),
    ("a subscriber that has stopped", lagging_subscriber,
     {"UnstallSubscriptionLags": {}, "UnstallStalled": {"side": "server", "cause": "socket_full"}}),
    ("a full disk", full_disk, {"UnstallMessagesNotStored": {}}),
]
SEVERITY = {"UnstallMessagesNotStored": "critical"}
ALERTS = ["UnstallStalled", "UnstallReconnectStorm", "UnstallMessagesNotStored", "UnstallSubscriptionLags",
          "UnstallMemoryNearLimit", "UnstallGaps"]


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def series_name(name):
    labels = 'instance="a:1",job="unstall"'
    return name[:-1] + "," + labels + "}" if name.endswith("}") else name + "{" + labels + "}"


def write(name, series, expected):
    print(f"  - name: {quoted(name)}")
    print("    interval: 15s")
    print("    input_series:")
    for key in sorted(series):
        if all(value == series[key][0] for value in series[key]):
            values = f"{series[key][0]}x{SAMPLES - 1}"
        else:
            values = " ".join(series[key])
        print(f"      - series: {quoted(series_name(key))}")
        print(f"        values: {quoted(values)}")
    print("    promql_expr_test:")
    for alert in ALERTS:
        for time_, labels in ((f"{(QUIET - 1) * 15}s", None), (f"{(SAMPLES - 1) * 15}s", expected.get(alert))):
            firing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
            print(f"      - expr: {quoted(firing)}")
            print(f"        eval_time: {time_}")
            if labels is None:
                print("        exp_samples: []")
                continue
            labels = {"alertname": alert, "alertstate": "firing", "severity": SEVERITY.get(alert, "warning"),
                      "instance": "a:1", "job": "unstall"} | labels
            inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
            print("        exp_samples:")
            expected_alert = f"ALERTS{{{inside}}}"
            print(f"          - labels: {quoted(expected_alert)}")
            print("            value: 1")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unstall", default="target/debug/unstall")
    unstall = os.path.abspath(parser.parse_args().unstall)
    print("# Recorded by record.py from real processes. A sample stands for 15 seconds.")
    print("rule_files:\n  - alerts.yml\nevaluation_interval: 15s\ntests:")
    for name, incident, expected in INCIDENTS:
        print(f"{name} …", file=sys.stderr)
        write(name, incident(unstall), expected)


if __name__ == "__main__":
    main()
