"""The data folder: room, and how long its disk takes to keep what is written; the store in it."""

import contextlib
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from longwire.app.doctor.report import Finding, failure, ok, unknown, warning

AREA = "files"
_LOW_BYTES = 1 << 30
_TOO_LOW_BYTES = 100 << 20
_SLOW_MS = 10.0
_SYNCS = 20
_BLOCK = b"\0" * 4_096


def look(folder: Path, *, has_store: bool) -> Iterator[Finding]:
    """``has_store``: whether the embedded store is kept there."""
    there = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), Path("/"))
    yield room(folder, there)
    yield sync_time(there)
    if has_store:
        yield store(folder / "longwire.db")


def room(folder: Path, there: Path) -> Finding:
    name = "room of data_dir"
    try:
        usage = shutil.disk_usage(there)
    except OSError as error:
        return unknown(AREA, name, f"{there}: {error.strerror}")
    made = "" if there == folder else ", which is made at the first start"
    fact = f"{usage.free / (1 << 30):,.1f} of {usage.total / (1 << 30):,.1f} GiB are free for {folder}{made}"
    if usage.free < _TOO_LOW_BYTES:
        return failure(AREA, name, fact, "nothing more can be kept: make room, or move data_dir")
    if usage.free < _LOW_BYTES:
        return warning(AREA, name, fact, "make room, or move data_dir")
    return ok(AREA, name, fact)


def sync_time(folder: Path) -> Finding:
    """Writes a file of its own beside the data, and removes it."""
    name = "sync of data_dir"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".longwire-doctor-") as file:
            times = [_sync_ms(file.fileno()) for _ in range(_SYNCS)]
    except OSError as error:
        return failure(AREA, name, f"{folder} is not written to: {error.strerror}", "let this user write there")
    middle, longest = statistics.median(times), max(times)
    fact = f"{middle:.2f} ms, at most {longest:.2f} ms, of {_SYNCS} syncs"
    if middle < _SLOW_MS:
        return ok(AREA, name, fact)
    return warning(AREA, name, fact, "every group of durable messages waits for that: put data_dir on a faster disk")


def _sync_ms(file: int) -> float:
    os.write(file, _BLOCK)
    began = time.perf_counter()
    os.fdatasync(file)
    return (time.perf_counter() - began) * 1_000


def store(file: Path) -> Finding:
    """The embedded store, read beside the process that may have it open."""
    name = "embedded store"
    if not file.exists():
        return ok(AREA, name, "not made yet")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        return failure(AREA, name, f"{file} cannot be read: {error}", "restore it, or start with an empty data_dir")
    size = f"{file.stat().st_size / (1 << 20):,.1f} MB"
    log = file.with_name(file.name + "-wal")
    if log.exists():
        size += f" and {log.stat().st_size / (1 << 20):,.1f} MB of log"
    fact = f"schema {revision[0] if revision else '?'}, journal {journal}, {size}"
    if journal == "wal":
        return ok(AREA, name, fact)
    return warning(AREA, name, fact, "a writer locks out readers: start Longwire, which sets WAL")
