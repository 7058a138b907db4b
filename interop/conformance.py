"""Runs Autobahn's cases by kosoku. Usage: conformance.py UNSTALL CONFORMANCE_CLIENT [CASE...]"""

import asyncio
import collections
import contextlib
import multiprocessing
import re
import sys
from typing import NamedTuple

import kosoku
from kosoku import _caseindex

import harness

# All that the suite has: framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, limits,
# automatic fragments, compression.
CHAPTERS = [f"{chapter}.*" for chapter in (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13)]
# How many cases these are. Fewer would mean that some were left out.
CASES = 517
# Text that is not UTF-8 fails at once, also within a frame.
STRICT = "6."
# What a case says that ran out of time.
LATE = re.compile(r"within \d+ seconds")
# This one has no time at all in its first try, so that each run shows that a late case is run again.
HURRIED = "12.1.1"
# Seconds for all cases of one side.
DEADLINE = 1200


def accept_uncompressed_messages():
    """Lets the cases of compression take a message that is not compressed.

    RFC 7692 section 6 allows such a message, and one that would not become smaller is sent so. kosoku
    0.1.0 hands it over as a str, and the case then fails to hash it.
    """
    _caseindex.initialize_shims()
    import case12_x_x

    for case in case12_x_x.Case12_X_X + case12_x_x.Case13_X_X:
        original = case.onMessage

        def on_message(self, msg, binary, original=original):
            if isinstance(msg, str):
                msg = msg.encode("latin-1" if binary else "utf-8")
            return original(self, msg, binary)

        case.onMessage = on_message


@contextlib.contextmanager
def hurry():
    _caseindex.initialize_shims()
    import case12_x_x

    first = case12_x_x.Case12_X_X[0]
    seconds, first.WAITSECS = first.WAITSECS, 0
    try:
        yield
    finally:
        first.WAITSECS = seconds


class Result(NamedTuple):
    case: str
    behavior: str
    closed: str
    why: str

    def is_good(self) -> bool:
        allowed = {"OK"} if self.case.startswith(STRICT) else {"OK", "NON-STRICT", "INFORMATIONAL"}
        return self.behavior in allowed and self.closed in {"OK", "INFORMATIONAL"}


async def results_of(run):
    try:
        return await asyncio.wait_for(run, DEADLINE)
    except kosoku.FailureError as failure:
        return failure.results


async def server(unstall: str, chosen: list[str]):
    harness.UNSTALL = unstall
    async with harness.serve("--plain", "--compress=smallest=0") as (url, _):
        run = kosoku.run_fuzzingclient(url + "/echo", chosen, None, concurrency=2)
        return await results_of(run)


async def client(program: str, chosen: list[str]):
    async with kosoku.run_fuzzingserver(chosen, None, host="127.0.0.1", port=0) as fuzzing:
        url = f"ws://127.0.0.1:{fuzzing.port}"
        process = await asyncio.create_subprocess_exec(program, url)
        assert await asyncio.wait_for(process.wait(), DEADLINE) == 0, "the client failed"
        return await results_of(fuzzing.get_result())


def run(side, program: str, chosen: list[str]) -> list[Result]:
    """Runs cases, in a process of its own."""
    return [
        Result(it.case_id, it.behavior.value, it.behavior_close.value, str(it.result))
        for it in asyncio.run(side(program, chosen))
    ]


def run_hurried(side, program: str, chosen: list[str]) -> list[Result]:
    with hurry():
        return run(side, program, chosen)


def main() -> int:
    unstall, program, *chosen = sys.argv[1:]
    accept_uncompressed_messages()
    sides = [(server, unstall), (client, program)]
    # The runner uses one core, so the two sides run side by side.
    with multiprocessing.get_context("fork").Pool(len(sides), maxtasksperchild=1) as processes:
        runs = [processes.apply_async(run_hurried, (*it, chosen or CHAPTERS)) for it in sides]
        first = [run.get() for run in runs]
        worst = 0
        for it, results in zip(sides, first, strict=True):
            # A case has ten seconds, and some move hundreds of megabytes. On a busy machine one may be
            # late. It is run again with nothing beside it.
            by_case = {result.case: result for result in results}
            late = [it.case for it in results if not it.is_good() and LATE.search(it.why)]
            assert HURRIED in late or HURRIED not in by_case, f"case {HURRIED} needed no time"
            for case in late:
                by_case.update({again.case: again for again in processes.apply(run, (*it, [case]))})
            if not judge(it[0].__name__, list(by_case.values()), len(late), all_of_them=not chosen):
                worst = 1
    return worst


def judge(side: str, results: list[Result], late: int, *, all_of_them: bool) -> bool:
    """Prints how the cases of a side ended. Returns whether that is good."""
    bad = [result for result in results if not result.is_good()]
    for it in bad:
        print(f"FAILED  {side}: case {it.case}: {it.behavior}, closed {it.closed}: {it.why}")
    counts = collections.Counter(result.behavior for result in results)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    print(f"{side}: {len(results)} cases: {told}; run again: {late}", flush=True)
    return not bad and (not all_of_them or len(results) == CASES)


if __name__ == "__main__":
    sys.exit(main())
