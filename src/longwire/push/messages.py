"""One to one: messages of the application to a device, a user or a group, from the API and from handlers.

    device:ID, user:ID, group:ID (small)     a row in each inbox; the link commits and delivers it
    group:ID (large)                         a push: stored once, written by the workers

Names are looked up together: what asks in one turn of the loop, or in one batch, is one read.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct
from pyroaring import BitMap

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ids import MESSAGE_ID_BYTES, is_device_id
from longwire.limits import MAX_KIND_CHARACTERS, MAX_TTL_S, Limits
from longwire.model import APPLICATION_NO, Envelope
from longwire.ports import link as link_port
from longwire.ports.accounts import AccountStore
from longwire.ports.audiences import AudienceStore
from longwire.ports.link import Link
from longwire.ports.pushes import PushStore, TooManyPushes
from longwire.push.orders import ACK_GRACE_MS, MAX_COLLAPSE_KEY_CHARACTERS
from longwire.push_model import Audience, NewPush, PushMessage, SetKind
from longwire.reasons import Status
from longwire.traces import NO_TRACES, Traces, is_sampled

logger = logging.getLogger("longwire.push")

T = TypeVar("T")

MAX_BATCH = 500
_RETRY_AFTER_S = 1.0
_CODES = {
    Status.UNKNOWN_TARGET: (RefusalCode.NOT_FOUND, "nobody is registered under this target"),
    Status.TOO_LARGE: (RefusalCode.PAYLOAD_TOO_LARGE, "the payload is too large"),
    Status.BAD_REQUEST: (RefusalCode.INVALID_PARAMETER, "the message cannot be sent"),
    Status.OFFLINE: (RefusalCode.DEVICE_OFFLINE, "nobody of the target is online"),
    Status.UNSUPPORTED: (RefusalCode.INVALID_PARAMETER, "the target is not built yet"),
    Status.OVERLOADED: (RefusalCode.OVERLOADED, "the target does not read, or too much waits for the store"),
    Status.NOT_DURABLE: (RefusalCode.OVERLOADED, "the store does not take it now"),
}


class Wanted(Struct, frozen=True):
    """A message that a caller wants to be sent. ``to``: ``device:ID``, ``user:ID`` or ``group:ID``."""

    to: str
    kind: str
    payload: bytes
    message_id: bytes
    ttl_s: int = -1
    """-1: the node's default; 0: only who is online now."""
    collapse_key: str = ""
    trace: bytes = b""


class Sent(Struct, frozen=True):
    """What became of a message. ``status`` is OK, DUPLICATE, or why it was refused; ``detail`` says the fact."""

    message_id: bytes
    status: Status
    detail: str = ""
    delivered_to: tuple[str, ...] = ()
    """Ids of devices with a session: it is on its way to them. Empty for a large group and for a DUPLICATE."""
    queued_for: tuple[str, ...] = ()
    is_acked: bool | None = None
    """Whether every receiver acknowledged it within the time that was asked for; None where none was."""

    @property
    def refusal(self) -> Refused | None:
        """The refusal as the API tells it; None for a message that was accepted, now or before."""
        if self.status.is_success:
            return None
        code, message = _CODES.get(self.status, (RefusalCode.OVERLOADED, f"refused: {self.status.label}"))
        again_s = _RETRY_AFTER_S if code is RefusalCode.OVERLOADED else None
        return Refused(code, self.detail or message, retry_after_s=again_s)


class _Target(NamedTuple):
    """Whom a message goes to. ``members``: those of a large group, whose message is a push."""

    receivers: tuple[int, ...]
    members: BitMap | None = None


_Outcome = tuple[Sent, link_port.Sent | None]
"""The outcome without names; and what the link said, where it was asked."""


class Messages:
    """Sends. ``send`` raises StoreUnavailable; everything else is a status."""

    def __init__(
        self,
        accounts: AccountStore,
        sets: AudienceStore,
        pushes: PushStore,
        link: Link,
        clock: Clock,
        limits: Limits,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._accounts = accounts
        self._pushes = pushes
        self._link = link
        self._clock = clock
        self._limits = limits
        self._numbers = _Gathered(sets.numbers_of)
        self._users = _Gathered(sets.devices_of_users)
        self._groups = _Gathered(lambda names: sets.members(SetKind.GROUP, names))

    async def send(
        self,
        to: str,
        kind: str,
        payload: bytes,
        *,
        message_id: bytes,
        ttl_s: int = -1,
        collapse_key: str = "",
        trace: bytes = b"",
        wait_ack_s: float = 0.0,
    ) -> Sent:
        """Sends one message; it is durable when this returns OK."""
        wanted = Wanted(to, kind, payload, message_id, ttl_s, collapse_key, trace)
        sent, outcome = await self._send(wanted, wait_ack_s)
        if sent.status is Status.NOT_DURABLE:
            raise StoreUnavailable(f"message to {to!r} was not kept: the store does not take it now")
        return (await self._named([(wanted, sent, outcome)]))[0]

    async def send_many(self, wanted: Sequence[Wanted]) -> list[Sent]:
        """Sends up to MAX_BATCH messages, each with its own outcome; committed in as few commits as come."""
        if len(wanted) > MAX_BATCH:
            raise ValueError(f"{len(wanted)} messages in one batch; at most {MAX_BATCH}")
        faults = [self._fault(one) for one in wanted]
        try:
            targets = await self._look_up([one.to for one, fault in zip(wanted, faults, strict=True) if fault is None])
        except StoreUnavailable as error:
            away = (Status.NOT_DURABLE, str(error))
            return [Sent(one.message_id, *(fault or away)) for one, fault in zip(wanted, faults, strict=True)]
        outcomes: list[_Outcome | None] = [None] * len(wanted)
        to_devices: list[tuple[int, Envelope]] = []
        for at, (one, fault) in enumerate(zip(wanted, faults, strict=True)):
            if fault is not None:
                outcomes[at] = _refused(one, fault)
                continue
            target = targets[one.to]
            if target is not None and target.members is None:
                to_devices.append((at, self._envelope(one, target)))
            else:
                outcomes[at] = await self._deliver(one, target)
        told = await self._link.send_many([envelope for _, envelope in to_devices])
        for (at, envelope), outcome in zip(to_devices, told, strict=True):
            outcomes[at] = Sent(envelope.message_id, outcome.status), outcome
        return await self._named([(one, *outcome) for one, outcome in zip(wanted, outcomes, strict=True) if outcome])

    async def status(self, wanted: Wanted) -> Status:
        """Sends one message for a caller who does not ask to whom. Raises StoreUnavailable."""
        return (await self._send(wanted, 0.0))[0].status

    async def _send(self, wanted: Wanted, wait_ack_s: float) -> _Outcome:
        fault = self._fault(wanted)
        if fault is not None:
            return _refused(wanted, fault)
        target = self._here(wanted.to) or (await self._look_up([wanted.to]))[wanted.to]
        return await self._deliver(wanted, target, wait_ack_s)

    async def _deliver(self, wanted: Wanted, target: _Target | None, wait_ack_s: float = 0.0) -> _Outcome:
        """Sends to a target that was looked up; never raises StoreUnavailable."""
        if target is None:
            scheme, _, name = wanted.to.partition(":")
            return _refused(wanted, (Status.UNKNOWN_TARGET, f"there is no {scheme} {name}"))
        if target.members is not None:
            return await self._push(wanted, target.members), None
        outcome = await self._link.send(self._envelope(wanted, target), wait_ack_s)
        is_acked = None
        if wait_ack_s > 0 and outcome.status is Status.OK:
            is_acked = set(outcome.acked_by).issuperset(target.receivers)
        return Sent(wanted.message_id, outcome.status, is_acked=is_acked), outcome

    def _envelope(self, wanted: Wanted, target: _Target) -> Envelope:
        now_ms, trace = self._clock.now_ms(), wanted.trace
        if self._traces.has_marks:
            trace = self._traces.marked(trace, target.receivers)
        return Envelope(
            APPLICATION_NO,
            "",
            wanted.message_id,
            "" if wanted.to.startswith("device:") else wanted.to,
            wanted.kind,
            wanted.payload,
            wanted.collapse_key,
            now_ms,
            now_ms + self._ttl_s(wanted) * 1000,
            target.receivers,
            trace=trace,
        )

    async def _push(self, wanted: Wanted, members: BitMap) -> Sent:
        """A message to a large group, stored once; its id is the push's, so that a repeat is known."""
        now_ms, ttl_s, trace = self._clock.now_ms(), self._ttl_s(wanted), wanted.trace
        if self._traces.has_marks:
            trace = self._traces.marked(trace, members, wanted.message_id)
        new = NewPush(
            wanted.message_id,
            Audience(sent_to_group=wanted.to.removeprefix("group:")),
            PushMessage(
                wanted.message_id,
                wanted.kind,
                wanted.payload,
                now_ms,
                to=wanted.to,
                collapse_key=wanted.collapse_key,
                trace=trace,
            ),
            now_ms,
            now_ms + (ttl_s * 1000 or ACK_GRACE_MS),
            ttl_s=ttl_s,
        )
        try:
            _, is_new = await self._pushes.create(new, members)
        except TooManyPushes as error:
            return Sent(wanted.message_id, Status.OVERLOADED, str(error))
        except StoreUnavailable as error:
            return Sent(wanted.message_id, Status.NOT_DURABLE, str(error))
        if is_sampled(trace):
            self._traces.hop("push.accepted", trace, push_id=wanted.message_id.hex(), targeted=len(members))
        return Sent(wanted.message_id, Status.OK if is_new else Status.DUPLICATE)

    def _fault(self, wanted: Wanted) -> tuple[Status, str] | None:
        """What is impossible about a message whatever the state of the system, or None."""
        limit = self._limits.max_payload_bytes
        if len(wanted.payload) > limit:
            return Status.TOO_LARGE, f"payload of {len(wanted.payload)} bytes exceeds {limit}"
        if len(wanted.message_id) != MESSAGE_ID_BYTES:
            return Status.BAD_REQUEST, f"message_id of {len(wanted.message_id)} bytes is not {MESSAGE_ID_BYTES}"
        if not 0 < len(wanted.kind) <= MAX_KIND_CHARACTERS:
            return Status.BAD_REQUEST, f"kind of {len(wanted.kind)} characters is not 1 to {MAX_KIND_CHARACTERS}"
        if not -1 <= wanted.ttl_s <= MAX_TTL_S:
            return Status.BAD_REQUEST, f"ttl_s {wanted.ttl_s} is not -1 to {MAX_TTL_S}"
        if len(wanted.collapse_key) > MAX_COLLAPSE_KEY_CHARACTERS:
            return Status.BAD_REQUEST, f"collapse_key is longer than {MAX_COLLAPSE_KEY_CHARACTERS} characters"
        scheme, _, name = wanted.to.partition(":")
        if scheme == "topic":
            return Status.UNSUPPORTED, "topic: is not built yet"
        if scheme not in ("device", "user", "group") or not is_device_id(name):
            return Status.BAD_REQUEST, "to is not device:ID, user:ID or group:ID"
        return None

    def _ttl_s(self, wanted: Wanted) -> int:
        return self._limits.default_ttl_s if wanted.ttl_s < 0 else wanted.ttl_s

    def _here(self, to: str) -> _Target | None:
        """Whom ``to`` means where that is a device with a session: known without a look-up."""
        number = self._link.number_of(to[7:]) if to.startswith("device:") else None
        return None if number is None else _Target((number,))

    async def _look_up(self, wanted: Sequence[str]) -> dict[str, _Target | None]:
        """Whom each ``to`` means, None where it means nothing. Raises StoreUnavailable."""
        names: dict[str, list[str]] = {"device": [], "user": [], "group": []}
        found: dict[str, _Target | None] = {}
        for to in wanted:
            here = self._here(to)
            if here is None:
                scheme, _, name = to.partition(":")
                names[scheme].append(name)
            else:
                found[to] = here
        for name, number in await self._numbers.find(names["device"]):
            found[f"device:{name}"] = None if number is None else _Target((number,))
        for name, devices in await self._users.find(names["user"]):
            found[f"user:{name}"] = _Target(tuple(devices)) if devices else None
        for name, members in await self._groups.find(names["group"]):
            found[f"group:{name}"] = None if members is None else self._group(members)
        return found

    def _group(self, members: BitMap) -> _Target:
        return _Target((), members) if len(members) > self._limits.small_group else _Target(tuple(members))

    async def _named(self, outcomes: Sequence[tuple[Wanted, Sent, link_port.Sent | None]]) -> list[Sent]:
        """The outcomes with the ids of the receivers; without them where the store does not tell."""
        names: dict[int, str] = {}
        unknown: set[int] = set()
        for wanted, _, outcome in outcomes:
            if outcome is not None and not wanted.to.startswith("device:"):
                unknown.update(outcome.delivered_to, outcome.queued_for)
        if unknown:
            try:
                known = await self._accounts.find_numbers(sorted(unknown))
            except StoreUnavailable as error:
                logger.warning("messages were sent, their receivers' names not found: %s", error)
            else:
                names.update((device.device_no, device.device_id) for device in known if device is not None)
        return [
            sent if outcome is None else _with_names(wanted.to, sent, outcome, names)
            for wanted, sent, outcome in outcomes
        ]


def _with_names(to: str, sent: Sent, outcome: link_port.Sent, names: dict[int, str]) -> Sent:
    if to.startswith("device:"):
        name = (to[7:],)
        delivered_to, queued_for = name if outcome.delivered_to else (), name if outcome.queued_for else ()
        return Sent(sent.message_id, sent.status, sent.detail, delivered_to, queued_for, sent.is_acked)
    return msgspec.structs.replace(
        sent,
        delivered_to=tuple(names[number] for number in outcome.delivered_to if number in names),
        queued_for=tuple(names[number] for number in outcome.queued_for if number in names),
    )


def _refused(wanted: Wanted, fault: tuple[Status, str]) -> _Outcome:
    return Sent(wanted.message_id, *fault), None


class _Gathered(Generic[T]):
    """Look-ups by name: what is asked while one read runs is the next one.

    The answers are shared by those who asked for one name; nobody changes them.
    """

    def __init__(self, read: Callable[[Sequence[str]], Awaitable[Sequence[T]]]) -> None:
        self._read = read
        self._waiting: list[tuple[Sequence[str], asyncio.Future[list[tuple[str, T]]]]] = []
        self._reading: asyncio.Task[None] | None = None

    async def find(self, names: Sequence[str]) -> list[tuple[str, T]]:
        """Each name with what it means. Raises StoreUnavailable."""
        if not names:
            return []
        answer: asyncio.Future[list[tuple[str, T]]] = asyncio.get_running_loop().create_future()
        self._waiting.append((names, answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await answer

    async def _read_all(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                await self._answer(asked)
        finally:
            self._reading = None

    async def _answer(self, asked: Sequence[tuple[Sequence[str], asyncio.Future[list[tuple[str, T]]]]]) -> None:
        wanted = list(dict.fromkeys(name for names, _ in asked for name in names))
        try:
            found = dict(zip(wanted, await self._read(wanted), strict=True))
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for names, answer in asked:
            if not answer.done():
                answer.set_result([(name, found[name]) for name in names])
