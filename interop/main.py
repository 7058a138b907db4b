"""Runs every check, one after the other. Usage: main.py PATH/TO/unstall [NAME...]"""

import asyncio
import logging
import sys
import time
import traceback

import harness
import python_client
import python_server


async def main() -> int:
    harness.UNSTALL = sys.argv[1]
    # Checks provoke warnings and errors on purpose.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    chosen = sys.argv[2:]
    checks = [
        check
        for check in python_client.checks() + python_server.checks()
        if not chosen or check.__name__ in chosen
    ]
    passed = 0
    for check in checks:
        name = f"{check.__module__}: {check.__name__.replace('_', ' ')}"
        started = time.monotonic()
        try:
            async with asyncio.timeout(harness.DEADLINE):
                await check()
        except Exception:
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        else:
            passed += 1
            print(f"passed  {name} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{passed} of {len(checks)} passed")
    return 0 if checks and passed == len(checks) else 1


sys.exit(asyncio.run(main()))
