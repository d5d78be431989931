"""Pushes as operators see them: ordered, looked at, steered.

Calls raise Refused (not-found for an unknown push, state-conflict for what its state does not allow) and
StoreUnavailable. What a call changes is durable when it returns.
"""

from collections.abc import Callable
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace
from pyroaring import BitMap

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.bitmaps import above, split
from longwire.clock import Clock
from longwire.ids import prefixed
from longwire.limits import Limits
from longwire.ports.accounts import AccountStore
from longwire.ports.link import Link
from longwire.ports.pushes import PushStore, StateConflict, TooManyPushes
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.push.audience import PUSH_PREFIX, RETRIED, Audiences, Resolved
from longwire.push.ending import end_on_nodes, finish_cancel
from longwire.push.orders import PushOrder, check_order, check_rate, new_push, notice_for, warnings_about
from longwire.push.verdict import Step, timeline, verdict
from longwire.push.whereabouts import whereabouts
from longwire.push_model import (
    ENDED,
    Audience,
    KeptAnswer,
    NewPush,
    Push,
    PushStats,
    PushStatus,
    RecipientState,
)
from longwire.traces import NO_TRACES, Traces, is_sampled

__all__ = [
    "Answering",
    "Progress",
    "PushOrder",
    "PushView",
    "Pushes",
    "RecipientDetail",
    "RecipientView",
    "Step",
    "Validation",
    "view_of",
]

_UNKNOWN = "what became of its devices is not kept any more"


class Progress(Struct, frozen=True):
    """How far a push is on its way to the nodes."""

    targeted: int
    dispatched: int
    """Devices handled: written to, or found to be away."""
    percent: float
    """0 to 100, with one decimal."""
    rate_per_s: float | None
    """Devices a second since it began, while it is being sent."""
    eta_s: float | None
    """Until the last device is handled; None where it is not being sent."""


class PushView(Struct, frozen=True):
    """A push and how far it is. ``push.stats`` always add up to ``targeted``."""

    push: Push
    progress: Progress

    @property
    def is_ended(self) -> bool:
        """Whether its status changes no more by itself."""
        return self.push.status in ENDED


class Validation(Struct, frozen=True):
    """What a push would be."""

    targeted: int
    online: int
    """Those of them with a session now."""
    payload_bytes: int
    warnings: tuple[str, ...]
    unresolved: int = 0
    unresolved_sample: tuple[str, ...] = ()


class RecipientView(Struct, frozen=True):
    """One of a push's devices. ``device_id`` None: it has been deleted since."""

    device_no: int
    device_id: str | None
    state: RecipientState
    reason: str = ""
    """Why it failed; "" otherwise."""


class RecipientDetail(Struct, frozen=True):
    """What became of one device. Outside of the audience ``state`` is None."""

    device_id: str
    in_audience: bool
    state: RecipientState | None
    is_written: bool
    reason: str
    """Why it failed; "" otherwise."""
    timeline: tuple[Step, ...]
    """In the order of time."""
    verdict: str
    """One sentence."""


Answering = Callable[[Push, Resolved], KeptAnswer | None]
"""Makes the idempotency record (status and body of the 202) from the push before it is committed; None without a
key. The push it gets has no ``push_no`` yet; ``view_of`` makes a view of it."""


def view_of(push: Push, now_ms: int) -> PushView:
    """The push with its progress."""
    targeted, dispatched = push.stats.targeted, push.dispatched
    percent = 100.0 if push.status in ENDED else 0.0
    if targeted:
        percent = round(100 * dispatched / targeted, 1)
    rate = eta_s = None
    if push.status is PushStatus.SENDING and push.started_at_ms is not None and dispatched:
        rate = round(dispatched / max(0.001, (now_ms - push.started_at_ms) / 1000), 1)
        # A rate that was set counts devices that are online; the measured one, all that are handled.
        eta_s = round((targeted - dispatched) / rate, 1) if rate else None
    return PushView(push, Progress(targeted, dispatched, percent, rate, eta_s))


class Pushes:
    """The operators' calls."""

    def __init__(
        self,
        store: PushStore,
        audiences: Audiences,
        accounts: AccountStore,
        routes: RouteTable,
        registry: Registry,
        link: Link,
        clock: Clock,
        limits: Limits,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._store = store
        self._audiences = audiences
        self._accounts = accounts
        self._routes = routes
        self._registry = registry
        self._link = link
        self._clock = clock
        self._limits = limits

    # Making

    async def create(self, order: PushOrder, answer: Answering) -> PushView:
        """Keeps the push: durable, with its audience, when this returns. Raises ports.pushes.AnsweredBefore."""
        check_order(order, self._limits.max_push_payload_bytes, self._clock.now_ms())
        if order.send_at_ms is None:
            return await self._keep(order, await self._audiences.resolve(order.audience), answer)
        self._audiences.check(order.audience)
        return await self._keep(order, Resolved(BitMap()), answer)

    async def validate(self, order: PushOrder) -> Validation:
        """What ``create`` would do now, refusals included; nothing is kept."""
        check_order(order, self._limits.max_push_payload_bytes, self._clock.now_ms())
        resolved = await self._audiences.resolve(order.audience)
        targeted, online = len(resolved.devices), 0
        for segment, devices in split(resolved.devices).items():
            here = await whereabouts(self._routes, self._registry, segment)
            online += sum(devices.intersection_cardinality(there) for there in here.values())
        return Validation(
            targeted,
            online,
            len(order.payload),
            tuple(warnings_about(order, resolved, online)),
            resolved.unresolved,
            resolved.sample,
        )

    async def retry(
        self,
        push_id: bytes,
        states: frozenset[RecipientState],
        answer: Answering,
        caller: str = "",
        trace: bytes = b"",
    ) -> PushView:
        """The same message as a new push to the devices in these states (failed, expired) of one that has ended.

        Without a ``trace`` of its own it goes under that of the first.
        """
        push = await self._find(push_id)
        if not states or not states <= RETRIED:
            raise Refused(RefusalCode.INVALID_PARAMETER, f"states are not some of {', '.join(sorted(RETRIED))}")
        if push.status not in ENDED:
            raise _conflict(push, "it can be sent again once it has ended")
        new = push.new
        order = PushOrder(
            Audience(retry_of=prefixed(PUSH_PREFIX, push_id), states=tuple(sorted(states))),
            new.message.kind,
            new.message.payload,
            new.ttl_s,
            new.priority,
            new.message.collapse_key,
            None,
            push.rate_per_s,
            trace or new.message.trace,
            caller,
        )
        return await self._keep(order, await self._audiences.resolve(order.audience), answer, push.push_no)

    async def _keep(
        self, order: PushOrder, resolved: Resolved, answer: Answering, retry_of: int | None = None
    ) -> PushView:
        now_ms = self._clock.now_ms()
        if self._traces.has_marks:
            order = replace(order, trace=self._traces.marked(order.trace, resolved.devices))
        new = new_push(order, resolved, now_ms, retry_of)
        keep = answer(_before_commit(new, resolved), resolved)
        try:
            push, _ = await self._store.create(new, resolved.devices, keep)
        except TooManyPushes as error:
            raise Refused(RefusalCode.OVERLOADED, f"{error}; messages to single devices need none", 60.0) from error
        if is_sampled(order.trace):
            self._traces.hop("push.accepted", order.trace, push_id=new.push_id.hex(), targeted=len(resolved.devices))
        return view_of(push, now_ms)

    # Looking

    async def find(self, push_id: bytes) -> PushView:
        """The push as it is now."""
        return view_of(await self._find(push_id), self._clock.now_ms())

    async def page(self, before_no: int, limit: int, status: PushStatus | None) -> tuple[list[PushView], int | None]:
        """A page, newest first, below ``before_no`` (0: from the newest); and where the next one starts."""
        now_ms = self._clock.now_ms()
        found = await self._store.page(before_no, limit + 1, status, now_ms)
        page = found[:limit]
        return [view_of(push, now_ms) for push in page], page[-1].push_no if len(found) > limit else None

    async def recipients(
        self, push_id: bytes, state: RecipientState, after_no: int, limit: int
    ) -> tuple[list[RecipientView], int | None]:
        """Devices in the state with numbers above ``after_no`` (0: from the first); and where to go on."""
        push = await self._find(push_id)
        devices = await self._store.in_state(push.push_no, state, self._clock.now_ms())
        if devices is None:
            raise Refused(RefusalCode.NOT_FOUND, _UNKNOWN)
        numbers = list(islice(above(devices, after_no), limit + 1))
        page = numbers[:limit]
        known = await self._accounts.find_numbers(page)
        reasons = await self._store.reasons(push.push_no, page) if state is RecipientState.FAILED else {}
        views = [
            RecipientView(number, None if device is None else device.device_id, state, reasons.get(number, ""))
            for number, device in zip(page, known, strict=True)
        ]
        return views, page[-1] if len(numbers) > limit else None

    async def recipient(self, push_id: bytes, device_id: str) -> RecipientDetail:
        """What became of one device, in words."""
        push = await self._find(push_id)
        now_ms = self._clock.now_ms()
        device = (await self._accounts.find_devices([device_id]))[0]
        if device is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no device {device_id}")
        found = await self._store.state_of(push.push_no, device.device_no, now_ms)
        if found is None and await self._store.in_state(push.push_no, RecipientState.ACKED, now_ms) is None:
            raise Refused(RefusalCode.NOT_FOUND, _UNKNOWN)
        session = (await self._link.sessions([device.device_no]))[0]
        state, is_written, reason = found or (None, False, "")
        return RecipientDetail(
            device_id,
            found is not None,
            state,
            is_written,
            reason,
            timeline(push, now_ms, session),
            verdict(push, state, is_written, reason, session is not None),
        )

    # Steering

    async def cancel(self, push_id: bytes) -> PushView:
        """Nobody is written to any more when this returns; who was not, is canceled. Repeating is no error."""
        push = await self._find(push_id)
        now_ms = self._clock.now_ms()
        if not await self._store.cancel(push.push_no, now_ms):
            raise _conflict(await self._find(push_id), "it cannot be canceled any more")
        await finish_cancel(self._store, self._link, push.push_no, now_ms)
        return await self.find(push_id)

    async def withdraw(self, push_id: bytes) -> PushView:
        """As cancel, also of a push that is done; and who has it is told to forget it. Repeating is no error.

        Raises StoreUnavailable after the nodes were told: then they write it no more, and it is to be repeated.
        """
        push = await self._find(push_id)
        if push.status is PushStatus.FAILED:
            raise _conflict(push, "nobody was sent it")
        if push.status is not PushStatus.WITHDRAWN:
            receipts = await end_on_nodes(self._link, push.push_no)
            now_ms = self._clock.now_ms()
            try:
                await self._store.withdraw(push.push_no, receipts, notice_for(push, now_ms), now_ms)
            except StateConflict as error:
                raise _conflict(await self._find(push_id), str(error)) from error
        return await self.find(push_id)

    async def pause(self, push_id: bytes) -> PushView:
        """What a node is writing at the moment is written to its end: at a rate, that of a quarter second."""
        await self._set_paused(push_id, is_paused=True)
        return await self.find(push_id)

    async def resume(self, push_id: bytes) -> PushView:
        """Goes on; who came online meanwhile is looked after at once."""
        push = await self._set_paused(push_id, is_paused=False)
        waiting = await self._store.in_state(push.push_no, RecipientState.PENDING, self._clock.now_ms())
        if waiting:
            await self._link.catch_up(waiting)
        return await self.find(push_id)

    async def set_rate(self, push_id: bytes, rate_per_s: int | None) -> PushView:
        """Devices a second from now on; None: as fast as it goes."""
        check_rate(rate_per_s)
        push = await self._find(push_id)
        if not await self._store.set_rate(push.push_no, rate_per_s):
            raise _conflict(await self._find(push_id), "its rate does not matter any more")
        return await self.find(push_id)

    async def _set_paused(self, push_id: bytes, *, is_paused: bool) -> Push:
        push = await self._find(push_id)
        if not await self._store.set_paused(push.push_no, is_paused):
            raise _conflict(await self._find(push_id), "only what is being sent can pause and go on")
        return push

    async def _find(self, push_id: bytes) -> Push:
        push = await self._store.find(push_id, self._clock.now_ms())
        if push is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no push {prefixed(PUSH_PREFIX, push_id)}")
        return push


def _before_commit(new: NewPush, resolved: Resolved) -> Push:
    """The push as its 202 tells it."""
    targeted = len(resolved.devices)
    status, ended_at_ms, started_at_ms = PushStatus.ACCEPTED, None, None
    if new.send_at_ms is not None:
        status = PushStatus.SCHEDULED
    elif not targeted:
        status, started_at_ms, ended_at_ms = PushStatus.COMPLETED, new.created_at_ms, new.created_at_ms
    return Push(
        push_no=0,
        new=new,
        status=status,
        dispatched=0,
        stats=PushStats(targeted=targeted, pending=targeted),
        latency_ms=(None, None, None),
        rate_per_s=new.rate_per_s,
        started_at_ms=started_at_ms,
        ended_at_ms=ended_at_ms,
    )


def _conflict(push: Push, message: str) -> Refused:
    return Refused(RefusalCode.STATE_CONFLICT, f"the push is {push.status}: {message}", more={"status": push.status})
