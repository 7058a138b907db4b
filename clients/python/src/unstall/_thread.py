"""An event loop in a thread of its own, for programs without asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ._errors import Closed

T = TypeVar("T")
#: How long a thread that was interrupted waits until its call has ended, in seconds: the loop is never busy
#: for so long.
ABANDON = 5.0


class LoopThread:
    """Runs coroutines for other threads. `stop` ends it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="unstall", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def run(
        self,
        work: Coroutine[Any, Any, T],
        timeout: float | None = None,
        interrupted: Callable[[T], None] | None = None,
    ) -> T:
        """The result of the coroutine. Raises `TimeoutError` after so many seconds; the coroutine is then
        cancelled, and a result that came in the same moment is returned. If this thread is interrupted, for
        example by Ctrl-C, a result that comes all the same is given to `interrupted`."""
        if threading.current_thread() is self._thread or not self._thread.is_alive():
            work.close()
            raise RuntimeError("this was called in the session's own thread, or after the session was closed")
        call: Call[T] = Call(work)
        asyncio.run_coroutine_threadsafe(call.run(timeout), self._loop)
        try:
            return call.result.result()
        except BaseException as error:
            if not call.result.done() or call.result.exception() is not error:
                asyncio.run_coroutine_threadsafe(call.abandon(interrupted), self._loop).result(ABANDON)
            raise

    def call(self, function: Callable[[], T]) -> T:
        """The result of a function that is called in the event loop."""

        async def work() -> T:
            return function()

        return self.run(work())

    def stop(self) -> None:
        """Ends the thread. What still runs is cancelled."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            asyncio.run_coroutine_threadsafe(cancel_others(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


class Call(Generic[T]):
    """One coroutine that another thread waits for."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self.result: Future[T] = Future()

    async def run(self, timeout: float | None) -> None:
        """Sets the result, even if it comes in the moment in which the time is over."""
        task = self._task = asyncio.ensure_future(self._work)
        try:
            await asyncio.wait({task}, timeout=timeout)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        except asyncio.CancelledError:
            self.result.set_exception(Closed("another thread has closed it"))
            raise
        error = TimeoutError(f"it took longer than {timeout} s") if task.cancelled() else task.exception()
        if error is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())

    async def abandon(self, interrupted: Callable[[T], None] | None) -> None:
        """The other thread waits no more."""
        task = self._task
        assert task is not None
        task.cancel()
        await asyncio.wait({task})
        if interrupted is not None and not task.cancelled() and task.exception() is None:
            interrupted(task.result())


async def cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
