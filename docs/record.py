#!/usr/bin/env python3
"""Records a command in a terminal of its own, and writes what it shows as an animated SVG.

docs/record.py                                  records `unstall demo` into docs/src/demo.svg
docs/record.py --output FILE -- COMMAND…        records another command

The recording is a real run, with its real times. It plays in every browser, and in the README on a forge.
A viewer without animation shows the last screen. It needs Python 3 on a Unix system, and nothing else.
"""
import argparse
import fcntl
import html
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

COLUMNS, ROWS = 116, 26
# How often the screen is looked at, in seconds.
TICK = 0.25
# How long the last screen stays before the recording begins anew.
HOLD = 12.0
TYPING = 0.06

CHARACTER_WIDTH, LINE_HEIGHT, MARGIN, BAR = 8.4, 19, 16, 30
COLOURS = ["#1e2127", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#abb2bf"]
BRIGHT = ["#7f848e", "#ff7b86", "#b5e890", "#f0d197", "#7fc4ff", "#dd9bf0", "#7bdfe8", "#ffffff"]
FOREGROUND, BACKGROUND = "#d7dae0", "#1e2127"

ESCAPE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78]")


class Screen:
    """As much of a terminal as progress bars and tables need."""

    def __init__(self):
        self.rows = [[] for _ in range(ROWS)]
        self.row = self.column = 0
        self.style = (FOREGROUND, False)
        self.rest = ""

    def feed(self, text):
        text = self.rest + text
        self.rest = ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                match = ESCAPE.match(text, at)
                if match is None:
                    # The end of a sequence may come with the next read.
                    if len(text) - at < 32:
                        self.rest = text[at:]
                        return
                    at += 1
                    continue
                if match[2]:
                    self.control(match[1], match[2])
                at = match.end()
                continue
            self.put(text[at])
            at += 1

    def put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.down()
        elif character == "\b":
            self.column = max(self.column - 1, 0)
        elif character >= " ":
            if self.column == COLUMNS:
                self.column = 0
                self.down()
            row = self.rows[self.row]
            while len(row) <= self.column:
                row.append((" ", (FOREGROUND, False)))
            row[self.column] = (character, self.style)
            self.column += 1

    def down(self):
        if self.row + 1 < ROWS:
            self.row += 1
        else:
            self.rows = self.rows[1:] + [[]]

    def control(self, arguments, kind):
        numbers = [int(number) for number in re.findall(r"\d+", arguments)]
        count = max(numbers[0] if numbers else 1, 1)
        if kind == "A":
            self.row = max(self.row - count, 0)
        elif kind == "B":
            self.row = min(self.row + count, ROWS - 1)
        elif kind == "C":
            self.column = min(self.column + count, COLUMNS - 1)
        elif kind == "D":
            self.column = max(self.column - count, 0)
        elif kind == "G":
            self.column = min(count, COLUMNS) - 1
        elif kind == "H":
            self.row = min(count, ROWS) - 1
            self.column = min(numbers[1] if len(numbers) > 1 else 1, COLUMNS) - 1
        elif kind == "K":
            self.erase_line(numbers[0] if numbers else 0)
        elif kind == "J":
            self.erase_line(0)
            for row in range(self.row + 1, ROWS):
                self.rows[row] = []
        elif kind == "m":
            self.colour(numbers or [0])

    def erase_line(self, what):
        row = self.rows[self.row]
        if what == 0:
            del row[self.column:]
        elif what == 2:
            row.clear()
        else:
            for column in range(min(self.column + 1, len(row))):
                row[column] = (" ", (FOREGROUND, False))

    def colour(self, numbers):
        colour, bold = self.style
        for number in numbers:
            if number == 0:
                colour, bold = FOREGROUND, False
            elif number == 1:
                bold = True
            elif number == 2:
                colour = BRIGHT[0]
            elif number == 22:
                bold = False
            elif 30 <= number <= 37:
                colour = COLOURS[number - 30]
            elif number == 39:
                colour = FOREGROUND
            elif 90 <= number <= 97:
                colour = BRIGHT[number - 90]
        self.style = (colour, bold)

    def look(self):
        """Each row as a tuple of runs: text, colour, bold."""
        return tuple(runs(row) for row in self.rows)


def runs(row):
    found = []
    for character, style in row:
        if found and found[-1][1:] == style:
            found[-1] = (found[-1][0] + character, *style)
        else:
            found.append((character, *style))
    while found and not found[-1][0].rstrip():
        found.pop()
    return tuple(found)


def record(command, shown):
    """Runs the command. Returns the screens with the time of each, and the exit code."""
    screen, screens = Screen(), []
    prompt = "\x1b[92m$\x1b[0m "
    screen.feed(prompt)
    now = 0.5
    screens.append((0.0, screen.look()))
    for character in shown:
        screen.feed(character)
        screens.append((now, screen.look()))
        now += TYPING
    screen.feed("\r\n")
    now += 0.4
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    began, undecoded, open_ = time.monotonic(), b"", True
    while open_:
        until = time.monotonic() + TICK
        while open_ and (left := until - time.monotonic()) > 0:
            if not select.select([parent], [], [], left)[0]:
                continue
            try:
                data = os.read(parent, 65536)
            except OSError:  # Linux says so when the last writer has closed.
                data = b""
            open_ = bool(data)
            undecoded += data
            text = undecoded.decode("utf-8", "ignore")
            undecoded = undecoded[len(text.encode()):] if open_ else b""
            screen.feed(text)
        look = screen.look()
        if look != screens[-1][1]:
            screens.append((now + time.monotonic() - began, look))
    os.close(parent)
    return screens, process.wait()


def drawn(row, line):
    """A row as SVG text."""
    y = BAR + MARGIN + line * LINE_HEIGHT + 13
    spans, column = [], 0
    for text, colour, bold in row:
        if text.strip():
            weight = ' font-weight="bold"' if bold else ""
            x = MARGIN + column * CHARACTER_WIDTH
            length = f' textLength="{len(text) * CHARACTER_WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"'
            spans.append(f'<tspan x="{x:.1f}" fill="{colour}"{weight}{length}>{html.escape(text)}</tspan>')
        column += len(text)
    return f'<text y="{y}" xml:space="preserve">{"".join(spans)}'


def svg(screens, title):
    """Each version of each row is shown for its time. Without animation the last ones are."""
    end = screens[-1][0] + HOLD
    lines = []
    used = max(line for _, look in screens for line, row in enumerate(look) if row) + 1
    for line in range(used):
        versions = []
        for at, look in screens:
            if not versions or versions[-1][1] != look[line]:
                versions.append((at, look[line]))
        for number, (at, row) in enumerate(versions):
            if not row:
                continue
            if number + 1 == len(versions):
                hidden = f'<set attributeName="visibility" to="hidden" begin="all.begin" dur="{at:.2f}s"/>'
                lines.append(drawn(row, line) + (hidden if at > 0 else "") + "</text>")
                continue
            length = versions[number + 1][0] - at
            shown = f'<set attributeName="visibility" to="visible" begin="all.begin+{at:.2f}s" dur="{length:.2f}s"/>'
            lines.append(drawn(row, line).replace("<text ", '<text visibility="hidden" ', 1) + shown + "</text>")
    width = MARGIN * 2 + COLUMNS * CHARACTER_WIDTH
    height = BAR + MARGIN * 2 + used * LINE_HEIGHT
    last = "\n".join("".join(run[0] for run in row).rstrip() for row in screens[-1][1]).strip()
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 18 * at}" cy="{BAR / 2 + 2}" r="5.5" fill="{colour}"/>'
        for at, colour in enumerate(["#ff5f56", "#ffbd2e", "#27c93f"])
    )
    body = "\n".join(lines)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" \
height="{height}" role="img" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', \
monospace" font-size="14">
<title>{html.escape(title)}</title>
<desc>{html.escape(last)}</desc>
<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}">
<animate id="all" attributeName="opacity" from="1" to="1" begin="0s;all.end" dur="{end:.2f}s"/></rect>
{dots}
{body}
</svg>
"""


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--output", type=pathlib.Path, default=root / "docs/src/demo.svg")
    arguments.add_argument("command", nargs="*")
    chosen = arguments.parse_args()
    command = chosen.command
    if not command:
        subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "unstall-cli"], check=True, cwd=root)
        target = os.environ.get("CARGO_TARGET_DIR", root / "target")
        command = [str(pathlib.Path(target, "release/unstall")), "demo"]
    shown = " ".join([pathlib.Path(command[0]).name, *command[1:]])
    screens, code = record(command, shown)
    picture = svg(screens, f"{shown}, recorded")
    chosen.output.write_text(picture)
    for row in screens[-1][1]:
        if row:
            print("".join(run[0] for run in row))
    print(f"{len(screens)} screens, {screens[-1][0]:.1f} s, {len(picture) // 1024} KiB in {chosen.output}")
    sys.exit(code)


if __name__ == "__main__":
    main()
