"""Where sync handlers run: a bounded pool of threads of the application's own.

A thread cannot be killed. A call that outlives its budget is given up by its caller, but its thread runs on and
its slot stays taken until the function returns: ``abandoned`` counts those, and when they are all there are,
later calls find no thread (status 14). So threads are daemons, unlike those of concurrent.futures: a handler
that hangs does not keep the process from exiting. Idle threads end by themselves.

    run() ──► waiting (in order) ──► a thread ──► the caller, if it still waits
"""

import asyncio
import contextvars
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from longwire.errors import LongwireError

IDLE_S = 10.0
MAX_WAITING = 1_024


class NoThread(LongwireError):
    """Every thread is taken and stays so; the function was not started."""


class Job:
    """A function on its way through the pool; ``is_started`` says whether a thread has taken it."""

    __slots__ = ("context", "done", "function", "is_abandoned", "is_started")

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        # Never an exception: a future would not take every one (StopIteration), so the outcome is a pair.
        self.done: Future[tuple[object, BaseException | None]] = Future()
        self.is_started = False
        self.is_abandoned = False

    def outcome(self) -> tuple[object, BaseException | None]:
        try:
            return self.context.run(self.function), None
        except BaseException as error:  # noqa: BLE001 - a thread's root; raised where run() is awaited
            return None, error


class HandlerThreads:
    """At most ``size`` threads, started as they are needed. May be used from several event loops."""

    def __init__(self, size: int, max_waiting: int = MAX_WAITING) -> None:
        if size < 1:
            raise ValueError(f"{size} threads are too few: sync handlers need at least 1")
        self.size = size
        self.max_waiting = max_waiting
        self.busy = 0
        """Threads inside a function, the abandoned ones included."""
        self.abandoned = 0
        """Threads inside a function that nobody waits for any more."""
        self._threads = 0
        self._idle = 0
        self._waiting: OrderedDict[Job, None] = OrderedDict()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self, job: Job) -> object:
        """What the job's function returns or raises, run in a thread with the context variables of its maker.

        Cancelled before it is started, the function never runs; later, it runs on without an audience. Raises
        NoThread where ``max_waiting`` others wait already.
        """
        self._submit(job)
        try:
            result, error = await asyncio.wrap_future(job.done)
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, which would hold it
        return result

    def _submit(self, job: Job) -> None:
        with self._changed:
            if len(self._waiting) >= self.max_waiting:
                raise NoThread(f"{len(self._waiting)} calls wait for a thread, {self.max_waiting} may")
            self._waiting[job] = None
            # A thread that was notified still counts as idle until it has taken its job.
            if len(self._waiting) > self._idle and self._threads < self.size:
                self._threads += 1
                threading.Thread(target=self._serve, name="longwire-handler", daemon=True).start()
            else:
                self._changed.notify()

    def _give_up(self, job: Job) -> None:
        with self._changed:
            self._waiting.pop(job, None)
            if job.is_started and not job.done.done():
                job.is_abandoned = True
                self.abandoned += 1

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            outcome = job.outcome()
            with self._changed:
                self.busy -= 1
                self.abandoned -= job.is_abandoned
                job.done.set_result(outcome)
            del job, outcome

    def _next(self) -> Job | None:
        with self._changed:
            while True:
                while not self._waiting:
                    self._idle += 1
                    was_notified = self._changed.wait(IDLE_S)
                    self._idle -= 1
                    if not was_notified and not self._waiting:
                        self._threads -= 1
                        return None
                job, _ = self._waiting.popitem(last=False)
                if job.done.set_running_or_notify_cancel():
                    job.is_started = True
                    self.busy += 1
                    return job
