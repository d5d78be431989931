"""SEND to ``group:``: to the members, the sending device left out.

    without receipt ─► fan_out.spread, to who is online; across.spread, to who is online on other nodes
    with receipt ─► up to limits.small_group receivers: a row in each inbox, as for user:
                └─► more: a push of the device's, stored once

Membership is checked against the same copy of the group that gives the receivers.
"""

from collections.abc import Callable
from functools import partial

from pyroaring import BitMap

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.answer import BUSY_RETRY_MS, Answer, traced
from longwire.gateway.delivery import Delivery, relayed, told
from longwire.gateway.directory import Directory, GroupMembers
from longwire.gateway.fan_out import FanOut
from longwire.gateway.session import Session, Work
from longwire.ids import is_device_id, new_message_id
from longwire.limits import Limits
from longwire.ports.across import Across
from longwire.ports.pushes import PushStore, TooManyPushes
from longwire.push_model import Audience, NewPush, PushMessage
from longwire.reasons import Status
from longwire.traces import NO_TRACES, SAMPLED, Traces
from longwire.wire.packets import Send

ToDevices = Callable[[Session, Send, Answer, bytes, tuple[int, ...], str], None]
"""Sends to devices as ``user:`` does: the packet, its answer and trace, the receivers, and the ``to`` of PUSH."""

# Who is online gets this long to acknowledge a message that has no time to live.
_GRACE_MS = 5_000


class Groups:
    """Messages of devices to groups."""

    def __init__(
        self,
        directory: Directory,
        fan_out: FanOut,
        delivery: Delivery,
        pushes: PushStore,
        clock: Clock,
        limits: Limits,
        across: Across | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._across = across
        self._directory = directory
        self._fan_out = fan_out
        self._delivery = delivery
        self._pushes = pushes
        self._clock = clock
        self._limits = limits

    def route(
        self, session: Session, packet: Send, answer: Answer, trace: bytes, group_id: str, to_devices: ToDevices
    ) -> Work | None:
        """Does what can be done at once; gives the rest, which must wait for something."""
        known = self._directory.find_group(group_id)
        if known is not None:
            return self._send(session, packet, answer, trace, known, to_devices)
        if not is_device_id(group_id):
            answer.give(Status.BAD_REQUEST, "to names no possible group")
            return None
        return partial(self._look_up, session, packet, answer, trace, group_id, to_devices)

    async def _look_up(
        self, session: Session, packet: Send, answer: Answer, trace: bytes, group_id: str, to_devices: ToDevices
    ) -> None:
        try:
            group = await self._directory.look_up_group(group_id)
        except StoreUnavailable:
            answer.give(Status.NOT_DURABLE, "the store does not answer", BUSY_RETRY_MS)
            return
        if group is None:
            answer.give(Status.UNKNOWN_TARGET, "there is no such group")
            return
        work = self._send(session, packet, answer, trace, group, to_devices)
        if work is not None:
            await work()

    def _send(
        self, session: Session, packet: Send, answer: Answer, trace: bytes, group: GroupMembers, to_devices: ToDevices
    ) -> Work | None:
        if session.device_no not in group.devices:
            answer.give(Status.NOT_PERMITTED, "the device is not a member of the group")
            return None
        receivers = group.without(session.device_no)
        if self._traces.has_marks:
            trace = self._traces.marked(trace, receivers)
            answer = traced(answer, self._traces, trace, packet)
        if not answer.is_wanted:
            if self._fan_out.is_full:
                answer.give(Status.OVERLOADED)
            else:
                if trace and trace[23] & SAMPLED:
                    answer.give(Status.OK)
                message = relayed(session, packet, packet.to, self._clock.now_ms())
                self._fan_out.spread(message, self._delivery.next_handle(), receivers, trace)
                if self._across is not None:
                    self._across.spread(told(message, trace), receivers)
            return None
        if len(receivers) <= self._limits.small_group:
            to_devices(session, packet, answer, trace, tuple(receivers), packet.to)
            return None
        return partial(self._push, session, packet, answer, trace, receivers)

    async def _push(self, session: Session, packet: Send, answer: Answer, trace: bytes, receivers: BitMap) -> None:
        now_ms = self._clock.now_ms()
        ttl_s = self._limits.default_ttl_s if packet.ttl_s < 0 else packet.ttl_s
        sender = session.address
        new = NewPush(
            push_id=new_message_id(),
            audience=Audience(sent_to_group=packet.to.removeprefix("group:")),
            message=PushMessage(
                packet.message_id,
                packet.kind,
                packet.payload,
                now_ms,
                sender,
                packet.to,
                packet.collapse_key,
                trace,
            ),
            created_at_ms=now_ms,
            expires_at_ms=now_ms + (ttl_s * 1000 or _GRACE_MS),
            sender_no=session.device_no,
            caller=sender,
            ttl_s=ttl_s,
        )
        try:
            _, is_new = await self._pushes.create(new, receivers)
        except StoreUnavailable:
            answer.give(Status.NOT_DURABLE, "the store does not take it now", BUSY_RETRY_MS)
        except TooManyPushes as error:
            answer.give(Status.OVERLOADED, str(error), BUSY_RETRY_MS)
        else:
            answer.give(Status.OK if is_new else Status.DUPLICATE)
