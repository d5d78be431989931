"""The lines of an import: CSV with a header, or NDJSON; each says one device or what is wrong with it.

CSV: ``device_id,user,tags,platform,app_version`` in any order, ``device_id`` at least; tags are separated by blanks.
NDJSON: an object a line with the same names, tags as a list. A record never goes on over a line's end.
"""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
from msgspec import Meta

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.accounts.tags import MAX_TAGS, USER_RULE, tag_fault
from longwire.ids import is_device_id
from longwire.ports.accounts import NewDevice

CSV = "csv"
NDJSON = "ndjson"
MAX_LINE_BYTES = 65_536

_COLUMNS = ("device_id", "user", "tags", "platform", "app_version")
_LABEL = re.compile(r"[^\x00-\x1f\x7f]{0,64}")


class BadLine(Exception):
    """A line that says no device."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Step(NamedTuple):
    """What some lines of a file say."""

    lines: int
    """Lines read, blank ones and the header too."""
    devices: list[tuple[int, NewDevice]]
    """With the line that says it, counted from 1."""
    errors: list[tuple[int, str, str]]
    """(line, code, detail)."""
    position: int
    """Where the next line begins, in bytes."""
    is_end: bool


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    device_id: str
    user: str | None = None
    tags: Annotated[list[str], Meta(max_length=10_000)] = []
    platform: str = ""
    app_version: str = ""


Reading = Callable[[str], _Said]
_decode = msgspec.json.Decoder(_Said).decode


def read_step(path: Path, form: str, position: int, line_no: int, count: int) -> Step:
    """Reads up to ``count`` lines from ``position``, where line ``line_no`` (from 0) begins. Raises OSError."""
    with path.open("rb") as file:
        read = _csv_reading(_first_line(file)) if form == CSV else _ndjson_reading
        file.seek(position)
        devices: list[tuple[int, NewDevice]] = []
        errors: list[tuple[int, str, str]] = []
        for number in range(line_no + 1, line_no + count + 1):
            line = _next_line(file)
            if line is None:
                return Step(number - line_no - 1, devices, errors, file.tell(), True)
            if (form == CSV and number == 1) or not line.strip():
                continue
            try:
                devices.append((number, _device(read(_text(line, is_first=number == 1)))))
            except BadLine as error:
                errors.append((number, error.code, str(error)))
        return Step(count, devices, errors, file.tell(), False)


def check_beginning(path: Path, form: str) -> None:
    """Raises Refused (invalid-parameter) for an empty file, and for a CSV whose header does not name its columns."""
    with path.open("rb") as file:
        try:
            first = _first_line(file)
            if form == CSV:
                _csv_reading(first)
        except BadLine as error:
            if form == CSV or not path.stat().st_size:
                raise Refused(RefusalCode.INVALID_PARAMETER, f"line 1: {error}") from None


def position_of(path: Path, line_no: int) -> int:
    """Where line ``line_no`` (from 0) begins, in bytes. Raises OSError."""
    with path.open("rb") as file:
        for _ in range(line_no):
            _next_line(file)
        return file.tell()


def _first_line(file: BinaryIO) -> str:
    line = _next_line(file)
    if line is None:
        raise BadLine("invalid-parameter", "there are no lines")
    return _text(line, is_first=True)


def _next_line(file: BinaryIO) -> bytes | None:
    """The next line, of one that is too long only the beginning; None at the end."""
    line = file.readline(MAX_LINE_BYTES + 1)
    piece = line
    while len(line) > MAX_LINE_BYTES and piece and not piece.endswith(b"\n"):
        piece = file.readline(MAX_LINE_BYTES)
    return line or None


def _text(line: bytes, *, is_first: bool) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise BadLine("payload-too-large", f"line is longer than {MAX_LINE_BYTES} bytes")
    try:
        return line.decode("utf-8-sig" if is_first else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadLine("invalid-parameter", f"not UTF-8 at byte {error.start}") from None


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise BadLine("invalid-parameter", f"not CSV: {error}") from None


def _csv_reading(header: str) -> Reading:
    columns = [name.strip() for name in _fields(header)] if header.strip() else []
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown or "device_id" not in columns or len(set(columns)) < len(columns):
        what = f"{unknown[0][:64]!r} is none of them" if unknown else "device_id is missing or a name stands twice"
        raise BadLine("invalid-parameter", f"the header names columns of {', '.join(_COLUMNS)}: {what}")

    def read(line: str) -> _Said:
        values = _fields(line)
        if len(values) != len(columns):
            raise BadLine("invalid-parameter", f"{len(values)} fields; the header names {len(columns)}")
        row = dict(zip(columns, values, strict=True))
        return _Said(
            row["device_id"].strip(),
            row.get("user", "").strip() or None,
            row.get("tags", "").split(),
            row.get("platform", "").strip(),
            row.get("app_version", "").strip(),
        )

    return read


def _ndjson_reading(line: str) -> _Said:
    try:
        return _decode(line)
    except msgspec.ValidationError as error:
        code = "unknown-field" if "unknown field" in str(error) else "invalid-parameter"
        raise BadLine(code, str(error)) from None
    except msgspec.DecodeError as error:
        raise BadLine("malformed-json", str(error)) from None


def _device(said: _Said) -> NewDevice:
    if not is_device_id(said.device_id):
        raise BadLine("invalid-parameter", f"device_id {USER_RULE}")
    if said.user is not None and not is_device_id(said.user):
        raise BadLine("invalid-parameter", f"user {USER_RULE}")
    if len(said.tags) > MAX_TAGS:
        raise BadLine("invalid-parameter", f"{len(said.tags)} tags; at most {MAX_TAGS}")
    for tag in said.tags:
        if fault := tag_fault(tag):
            raise BadLine("invalid-parameter", f"tag {tag[:64]!r} {fault}")
    if _LABEL.fullmatch(said.platform) is None or _LABEL.fullmatch(said.app_version) is None:
        raise BadLine("invalid-parameter", "platform or app_version is not 0-64 characters without control characters")
    return NewDevice(
        said.device_id,
        b"",
        0,
        None,
        said.user,
        tuple(dict.fromkeys(said.tags)),
        said.platform,
        said.app_version,
        is_claimed=False,
    )
