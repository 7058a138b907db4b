#!/usr/bin/env python3
"""The figures of real processes are a page that promtool takes, and the dashboard and the alert rules ask for
nothing that is not on it.

docs/metrics/check.py [--unstall target/debug/unstall]

The rules are tested against the recorded incidents. Debian's package `prometheus` has promtool; without it only
the names are checked, and that is said.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from record import Program

HERE = pathlib.Path(__file__).parent
NAME = re.compile(r"\bunstall_[a-z_]+\b")
#: They appear with their first event.
SELDOM = {"unstall_connections_lost_total", "unstall_sessions_lost_total", "unstall_undelivered_messages_total",
          "unstall_round_trip_seconds"}


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *arguments], input=text, text=True, capture_output=True, cwd=HERE)
    if done.returncode != 0 or done.stderr.strip():
        sys.exit(f"promtool {' '.join(arguments)}:\n{done.stdout}{done.stderr}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unstall", default="target/debug/unstall")
    unstall = os.path.abspath(parser.parse_args().unstall)
    pages = []
    for arguments in (["serve"], ["hub"]):
        program = Program(unstall, *arguments, "--listen", "127.0.0.1:0")
        pages.append(program.page())
        program.end()
    there = set(re.findall(r"^# TYPE (\S+)", "\n".join(pages), re.M)) | SELDOM
    used = 0
    expressions = [target["expr"] for panel in json.loads((HERE / "dashboard.json").read_text())["panels"]
                   for target in panel["targets"]]
    for where, text in (("dashboard.json", " ".join(expressions)), ("alerts.yml", (HERE / "alerts.yml").read_text())):
        names = {name.removesuffix("_bucket") for name in NAME.findall(text)}
        used += len(names)
        if missing := names - there:
            sys.exit(f"{where} asks for what no process tells: {sorted(missing)}")
    print(f"{len(there)} figures; the dashboard and the rules ask for {used} of them")
    if not shutil.which("promtool"):
        print("SKIPPED: promtool is not installed (Debian: apt-get install prometheus)")
        return
    for page in pages:
        promtool("check", "metrics", text=page)
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts_test.yml")
    print("promtool takes the pages, and each rule fires in its recorded incident and in no other")


if __name__ == "__main__":
    main()
