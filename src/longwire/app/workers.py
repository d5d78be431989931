"""Several gateway nodes of one machine from one warm parent, which shares its memory with them by fork.

    parent ── fork ──► node-1 … node-N       a worker that ends by itself is started again, after 1, 2 … 30 s
       │  SIGTERM, SIGINT ─► all are stopped · SIGHUP ─► one after the other is stopped and started again

The parent imports and nothing else: no loop, no thread, no connection, for none of them survives a fork whole.
"""

import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from longwire.app.settings import Settings

RunOne = Callable[[Settings, Callable[[], None]], int]
"""Runs a worker with these settings; calls the second when it is ready. The exit status."""

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_SETTLED_S = 60.0
"""A worker that lived so long is started again at once."""
_GIVES_UP_AFTER = 5
_STOPS_WITHIN_S = 15.0
"""Beside ``drain_s``."""
_LOOK_EVERY_S = 0.25
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


def settings_of_worker(settings: Settings, at: int) -> Settings:
    """The settings of worker ``at`` (from 0): a name and ports of its own; a port 0 is picked by the system."""
    shared = 0 if settings.share_port else at
    return settings.model_copy(
        update={
            "workers": 1,
            "node_name": f"{settings.node_name}-{at + 1}",
            "port": settings.port and settings.port + shared,
            "tls_port": settings.tls_port and settings.tls_port + shared,
            "internal_port": settings.internal_port and settings.internal_port + at,
        }
    )


def run_workers(settings: Settings, run_one: RunOne) -> int:
    """Runs ``settings.workers`` workers until a signal ends them. The exit status.

    To be called with everything imported that a worker needs, and nothing started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    gc.collect()
    gc.freeze()
    try:
        return _Parent(settings, run_one, before).run()
    finally:
        gc.unfreeze()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """One of them, as its parent sees it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = settings.node_name
        self.pid: int | None = None
        self.pipe: int | None = None
        """It becomes readable when the worker is ready, or ends."""
        self.is_ready = False
        self.began_at = 0.0
        self.begins_at: float | None = 0.0
        """When it is to be started; None while it runs, or is not to."""
        self.pause_s = _FIRST_PAUSE_S
        self.failed_starts = 0
        self.is_asked_to_end = False

    def close_pipe(self) -> None:
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None


class _Parent:
    def __init__(self, settings: Settings, run_one: RunOne, mask: set[int | signal.Signals]) -> None:
        self._run_one = run_one
        self._mask = mask
        self._stops_within_s = settings.drain_s + _STOPS_WITHIN_S
        self._workers = [_Worker(settings_of_worker(settings, at)) for at in range(settings.workers)]
        self._restarting: deque[_Worker] = deque()
        self._was_any_ready = False
        self._stop_at: float | None = None
        """When what still runs is killed; None while nobody wants an end."""
        self._status = 0

    def run(self) -> int:
        while True:
            for worker in self._workers:
                if worker.begins_at is not None and time.monotonic() >= worker.begins_at:
                    self._start(worker)
            self._heed(signal.sigtimedwait(_SIGNALS, _LOOK_EVERY_S))
            self._look_who_is_ready()
            self._reap()
            self._restart_next()
            if self._stop_at is not None:
                left = [worker for worker in self._workers if worker.pid is not None]
                if not left:
                    return self._status
                if time.monotonic() >= self._stop_at:
                    self._tell(signal.SIGKILL)

    # -- signals -------------------------------------------------------------------------------------------------

    def _heed(self, received: signal.struct_siginfo | None) -> None:
        match received.si_signo if received is not None else None:
            case signal.SIGTERM:
                self._stop()
            case signal.SIGINT:
                if self._stop_at is not None:
                    self._stop_at = 0.0
                self._stop()
            case signal.SIGHUP if self._stop_at is None:
                log.info("the workers are started again, one after the other")
                self._restarting = deque(self._workers)
                self._stop_next()

    def _stop(self) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._stops_within_s
        self._restarting.clear()
        for worker in self._workers:
            worker.begins_at = None
        self._tell(signal.SIGTERM)

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, number)

    # -- a rolling restart: the first of those to be restarted is under way -----------------------------------------

    def _stop_next(self) -> None:
        worker = self._restarting[0]
        if worker.pid is not None:
            worker.close_pipe()  # what it may have said of itself is not to be taken for its successor's
            worker.is_ready, worker.is_asked_to_end = False, True
            os.kill(worker.pid, signal.SIGTERM)

    def _restart_next(self) -> None:
        if self._restarting and self._restarting[0].is_ready:
            self._restarting.popleft()
            if self._restarting:
                self._stop_next()

    # -- workers -------------------------------------------------------------------------------------------------

    def _start(self, worker: _Worker) -> None:
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be(worker, writer, parent)
        os.close(writer)
        worker.pid, worker.pipe = pid, reader
        worker.is_ready = False
        worker.begins_at, worker.began_at = None, time.monotonic()
        log.info("worker %s is started, process %d", worker.name, pid)

    def _be(self, worker: _Worker, ready: int, parent: int) -> NoReturn:
        """In the child. It ends here: nothing of the parent's own is to run twice."""
        status = 1
        try:
            os.setpgrp()  # a terminal's signals are the parent's to hand on
            _end_with(parent)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            for other in self._workers:
                other.close_pipe()
            status = self._run_one(worker.settings, lambda: _say(ready))
        except BaseException:
            log.exception("worker %s failed", worker.name)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _look_who_is_ready(self) -> None:
        pipes = {worker.pipe: worker for worker in self._workers if worker.pipe is not None}
        for pipe in select.select(list(pipes), [], [], 0)[0]:
            worker = pipes[pipe]
            worker.is_ready = bool(os.read(pipe, 1))
            worker.close_pipe()
            if worker.is_ready:
                self._was_any_ready = True
                worker.failed_starts = 0

    def _reap(self) -> None:
        while True:
            try:
                pid, how = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for worker in self._workers:
                if worker.pid == pid:
                    self._ended(worker, os.waitstatus_to_exitcode(how))

    def _ended(self, worker: _Worker, status: int) -> None:
        now = time.monotonic()
        lived_s, was_ready = now - worker.began_at, worker.is_ready
        worker.pid, worker.is_ready = None, False
        worker.close_pipe()
        if self._stop_at is not None:
            if status not in (0, -signal.SIGTERM):  # the signal itself: it came before the worker heeded any
                self._status = self._status or 1
            return
        if worker.is_asked_to_end:
            worker.is_asked_to_end = False
            worker.begins_at = now
            return
        how = f"of signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        if not was_ready and status > 0 and not self._was_any_ready:
            worker.failed_starts += 1
            if worker.failed_starts >= _GIVES_UP_AFTER:
                log.critical("worker %s ended %s %d times before any was ready", worker.name, how, _GIVES_UP_AFTER)
                self._status = status
                self._stop()
                return
        worker.pause_s = _FIRST_PAUSE_S if lived_s >= _SETTLED_S else worker.pause_s
        log.error("worker %s ended %s; it is started again in %g s", worker.name, how, worker.pause_s)
        worker.begins_at = now + worker.pause_s
        worker.pause_s = min(worker.pause_s * 2, _LONGEST_PAUSE_S)


def _say(ready: int) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; its end is told by a signal
        os.write(ready, b"1")
    os.close(ready)


def _end_with(parent: int) -> None:
    """Has the kernel send SIGTERM when the parent ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)  # it ended before that
