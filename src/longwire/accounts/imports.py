"""Imports: devices registered from a file, in the background, a few thousand lines a step.

    body ─► data_dir/imports/ID ─► job ─► step: lines ─► register ─► where the job stands ─► … ─► file deleted

A step that a crash interrupts is done again: registering a device twice changes nothing. Devices of an import have
no token; the first to register as one becomes it. Jobs run one after the other.

Several processes may share a store: a job is done by one that has its file, and of those of a machine by the one that
has locked it.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from longwire.accounts.each import register_each
from longwire.accounts.import_lines import CSV, Step, check_beginning, position_of, read_step
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.limits import Limits
from longwire.operations_model import Import
from longwire.ports.accounts import AccountStore, TooManyTags
from longwire.ports.imports import ImportStore

log = logging.getLogger(__name__)

IMPORT_PREFIX = "imp"
RUNNING, COMPLETED, FAILED = "running", "completed", "failed"

_STEP_LINES = 5_000
"""A step touches each tag's bitmap once, however many of its devices have the tag."""
_MAX_ERRORS = 1_000
_MAX_DETAIL = 300
_RETRY_S = 2.0
_LOOK_EVERY_S = 60.0
_ORPHAN_AFTER_S = 3_600.0


class Imports:
    """Takes jobs in, tells of them, and does them one after the other while ``run`` runs."""

    def __init__(
        self,
        accounts: AccountStore,
        store: ImportStore,
        clock: Clock,
        limits: Limits,
        folder: Path,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        is_shared: bool = False,
    ) -> None:
        """``folder``: where files wait; it is made when the first comes.

        ``is_shared``: whether others have jobs in the store, too; a job without a file here is theirs then.
        """
        self._accounts = accounts
        self._store = store
        self._clock = clock
        self._limits = limits
        self._folder = folder
        self._sleep = sleep
        self._is_shared = is_shared
        self._wake = asyncio.Event()

    async def take(self, body: AsyncIterable[bytes], form: str) -> Import:
        """Keeps a body of ``csv`` or ``ndjson`` lines as a job; once this returns the job will be done.

        Raises Refused (payload-too-large: too many lines; invalid-parameter: a header that names no columns),
        StoreUnavailable, and what reading the body raises.
        """
        import_id = new_message_id()
        path = self._path(import_id)
        try:
            await self._spool(body, path, headers=1 if form == CSV else 0)
            await asyncio.to_thread(check_beginning, path, form)
            job = Import(import_id, RUNNING, form, self._clock.now_ms())
            await self._store.put(job)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._wake.set()
        return job

    async def find(self, import_id: bytes) -> Import:
        """How far a job is. Raises Refused (not-found) and StoreUnavailable."""
        job = await self._store.find(import_id)
        if job is None:
            raise Refused(RefusalCode.NOT_FOUND, "there is no such import; they are kept for 7 days after their end")
        return job

    async def page(self, before_id: bytes, limit: int) -> tuple[Sequence[Import], bytes | None]:
        """Jobs, newest first; and before which one the next page starts."""
        found = await self._store.page(before_id, limit + 1)
        return found[:limit], found[limit - 1].import_id if len(found) > limit else None

    # -- the work ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Does every job that is not done and whose file is here, until it is cancelled."""
        while True:
            self._wake.clear()
            try:
                running = await self._store.running()
                self._forget_orphans(running)
                for job in running:
                    await self._do_if_mine(job)
            except StoreUnavailable as error:
                log.warning("imports wait for the store: %s", error)
                await self._sleep(_RETRY_S)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_EVERY_S)

    async def _do_if_mine(self, job: Import) -> None:
        path = self._path(job.import_id)
        try:
            file = path.open("rb")
        except OSError as error:
            if not self._is_shared or not isinstance(error, FileNotFoundError):
                log.error("the file of import %s cannot be read: %s", job.import_id.hex(), error)
                await self._end(job, FAILED)
            return
        with file:
            if not _lock(file):
                return
            # Whoever had it locked may have come further, and to the end, since the jobs were listed.
            now = await self._store.find(job.import_id)
            if now is not None and now.status == RUNNING:
                await self._do(now)
            path.unlink(missing_ok=True)

    async def _do(self, job: Import) -> None:
        path, position = self._path(job.import_id), 0
        try:
            if job.lines:  # after a restart: where the line begins at which the job stood
                position = await asyncio.to_thread(position_of, path, job.lines)
            is_end = False
            while not is_end:
                step = await asyncio.to_thread(read_step, path, job.format, position, job.lines, _STEP_LINES)
                job, position, is_end = await self._register(job, step), step.position, step.is_end
                await self._store.put(job)
            await self._end(job, COMPLETED)
        except OSError as error:
            log.error("the file of import %s cannot be read: %s", job.import_id.hex(), error)
            await self._end(job, FAILED)

    async def _end(self, job: Import, status: str) -> None:
        await self._store.put(replace(job, status=status, ended_at_ms=self._clock.now_ms()))

    async def _register(self, job: Import, step: Step) -> Import:
        outcomes = await register_each(self._accounts, [device for _, device in step.devices], self._clock.now_ms())
        refused = [
            (line, "invalid-parameter", str(outcome))
            for (line, _), outcome in zip(step.devices, outcomes, strict=True)
            if isinstance(outcome, TooManyTags)
        ]
        errors = sorted(step.errors + refused)
        kept = [*job.errors, *((line, code, detail[:_MAX_DETAIL]) for line, code, detail in errors)][:_MAX_ERRORS]
        return replace(
            job,
            lines=job.lines + step.lines,
            done=job.done + len(step.devices) - len(refused),
            failed=job.failed + len(errors),
            errors=tuple(kept),
        )

    # -- files ------------------------------------------------------------------------------------------------

    def _path(self, import_id: bytes) -> Path:
        return self._folder / import_id.hex()

    async def _spool(self, body: AsyncIterable[bytes], path: Path, headers: int) -> None:
        """Writes the body down, durably. Raises Refused for too many lines."""
        limit, ended = self._limits.max_upload_ids, 0
        file = await asyncio.to_thread(_open_new, path)
        with contextlib.closing(file):
            async for piece in body:
                ended += piece.count(b"\n")
                lines = ended - headers + (not piece.endswith(b"\n"))
                if lines > limit:
                    more = {"limit": limit, "actual": lines}
                    raise Refused(RefusalCode.PAYLOAD_TOO_LARGE, f"more than {limit} lines", more=more)
                await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(_sync, file)

    def _forget_orphans(self, running: Sequence[Import]) -> None:
        """Deletes old files of no job: a crash left them before it was kept, or behind it."""
        before = time.time() - _ORPHAN_AFTER_S
        wanted = {self._path(job.import_id) for job in running}
        for path in set(self._folder.glob("*")) - wanted:
            with contextlib.suppress(OSError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_mtime < before and _lock(file):
                    path.unlink(missing_ok=True)


def _lock(file: BinaryIO) -> bool:
    """Has the file locked until it is closed; False where another process or task has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_new(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    return path.open("xb")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
