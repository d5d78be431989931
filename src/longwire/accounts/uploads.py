"""Audience uploads: long lists of device ids, sent once and named in pushes."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import NamedTuple

from pyroaring import BitMap

from longwire.accounts.devices import MAX_SAMPLE, Unresolved
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.ids import is_device_id, new_message_id, prefixed
from longwire.limits import Limits
from longwire.ports.audiences import AudienceStore

KEPT_MS = 86_400_000
UPLOAD_PREFIX = "upl"
_AT_ONCE = 10_000
_MAX_LINE_BYTES = 256


class Upload(NamedTuple):
    """A list that is kept."""

    upload_id: str
    devices: int
    unresolved: Unresolved
    expires_at_ms: int


class Uploads:
    """Takes lists in."""

    def __init__(self, sets: AudienceStore, clock: Clock, limits: Limits) -> None:
        self._sets = sets
        self._clock = clock
        self._limits = limits

    async def take(self, body: AsyncIterable[bytes]) -> Upload:
        """Keeps the devices whose ids stand in the lines of ``body``; blank lines mean nothing.

        Raises Refused (payload-too-large: too many lines; no-target: none of them is a registered device),
        StoreUnavailable, and what reading the body raises.
        """
        found = _Found(self._sets)
        names: list[str] = []
        count = 0
        async for lines in _lines(body):
            named = [name for line in lines if (name := line.decode("utf-8", "replace").strip(" \t\r\ufeff"))]
            count += len(named)
            if count > self._limits.max_upload_ids:
                limit = self._limits.max_upload_ids
                raise Refused(
                    RefusalCode.PAYLOAD_TOO_LARGE, f"more than {limit} lines", more={"limit": limit, "actual": count}
                )
            names += named
            if len(names) >= _AT_ONCE:
                await found.take(names)
                names = []
        await found.take(names)
        if not found.devices:
            raise Refused(RefusalCode.NO_TARGET, f"none of {count} lines is the id of a registered device")
        now_ms = self._clock.now_ms()
        upload_id, expires_at_ms = prefixed(UPLOAD_PREFIX, new_message_id()), now_ms + KEPT_MS
        await self._sets.keep_upload(upload_id, found.devices, now_ms, expires_at_ms)
        return Upload(upload_id, len(found.devices), Unresolved(found.unknown, tuple(found.sample)), expires_at_ms)


class _Found:
    """What the names of a list mean, as far as it was read."""

    def __init__(self, sets: AudienceStore) -> None:
        self._sets = sets
        self.devices = BitMap()
        self.unknown = 0
        self.sample: list[str] = []

    async def take(self, names: list[str]) -> None:
        possible = [name for name in names if is_device_id(name)]
        numbers = await self._sets.numbers_of(possible)
        known = [number for number in numbers if number is not None]
        self.devices.update(known)
        self.unknown += len(names) - len(known)
        if len(self.sample) < MAX_SAMPLE and len(known) < len(names):
            registered = {name for name, number in zip(possible, numbers, strict=True) if number is not None}
            missing = (name[:64] for name in names if name not in registered)
            self.sample += [name for name, _ in zip(missing, range(MAX_SAMPLE - len(self.sample)), strict=False)]


async def _lines(body: AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    """The lines that each piece of the body completes. Of a line that is too long to be an id, the beginning."""
    tail = b""
    async for piece in body:
        *lines, tail = (tail + piece).split(b"\n")
        tail = tail[:_MAX_LINE_BYTES]
        yield lines
    yield [tail]
