"""Runs Autobahn's cases by kosoku. Usage: conformance.py UNSTALL CONFORMANCE_CLIENT [CASE...]"""

import asyncio
import collections
import contextlib
import functools
import re
import sys

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


def is_good(result) -> bool:
    allowed = {"OK"} if result.case_id.startswith(STRICT) else {"OK", "NON-STRICT", "INFORMATIONAL"}
    return result.behavior.value in allowed and result.behavior_close.value in {
        "OK",
        "INFORMATIONAL",
    }


async def main() -> int:
    unstall, program, *chosen = sys.argv[1:]
    accept_uncompressed_messages()
    worst = 0
    for name, run in [
        ("server", functools.partial(server, unstall)),
        ("client", functools.partial(client, program)),
    ]:
        with hurry():
            results = {result.case_id: result for result in await run(chosen or CHAPTERS)}
        # A case has ten seconds, and some move hundreds of megabytes. On a busy machine one may be late.
        # It is run again with nothing beside it.
        late = [case for case, it in results.items() if not is_good(it) and LATE.search(str(it.result))]
        assert HURRIED in late or HURRIED not in results, f"case {HURRIED} needed no time"
        for case in late:
            results.update({again.case_id: again for again in await run([case])})
        results = list(results.values())
        counts = collections.Counter(result.behavior.value for result in results)
        bad = [result for result in results if not is_good(result)]
        for result in bad:
            why = f"{result.behavior.value}, closed {result.behavior_close.value}: {result.result}"
            print(f"FAILED  {name}: case {result.case_id}: {why}")
        told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        print(f"{name}: {len(results)} cases: {told}; run again: {len(late)}", flush=True)
        if bad or (not chosen and len(results) != CASES):
            worst = 1
    return worst


sys.exit(asyncio.run(main()))
